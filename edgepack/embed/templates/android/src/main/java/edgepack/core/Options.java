package edgepack.core;

import java.util.Collection;
import java.util.Collections;

/** What to recommend; every method returns a changed copy. */
public final class Options {
  /** As many items as the bundle was judged by, none left out, no search. */
  public static final Options DEFAULT = new Options(0, Collections.<String>emptyList(), "");

  final int k;
  final Collection<String> exclude;
  final String query;

  private Options(int k, Collection<String> exclude, String query) {
    this.k = k;
    this.exclude = exclude;
    this.query = query;
  }

  /** How many items, at least 1. */
  public Options k(int items) {
    if (items < 1) throw new IllegalArgumentException("k is " + items + "; it is at least 1");
    return new Options(items, exclude, query);
  }

  /** Ids that must not be recommended: out of stock, say. */
  public Options exclude(Collection<String> ids) {
    return new Options(k, ids, query);
  }

  /** A search text; only a model with {@link Contract#query} reads it. */
  public Options query(String text) {
    return new Options(k, exclude, text);
  }
}
