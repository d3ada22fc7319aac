package edgepack.core;

import java.util.Collections;
import java.util.List;

/** What is recommended. */
public final class Ranking {
  /** Best first; equal scores by the item's place in the vocabulary. */
  public final List<Entry> entries;
  /** Ids of the history that the model does not know; they were left out. */
  public final List<String> unknown;
  /** How long it took, the engine and all around it. */
  public final double milliseconds;

  Ranking(List<Entry> entries, List<String> unknown, double milliseconds) {
    this.entries = Collections.unmodifiableList(entries);
    this.unknown = Collections.unmodifiableList(unknown);
    this.milliseconds = milliseconds;
  }

  /** One recommended item. */
  public static final class Entry {
    public final Catalogue.Item item;
    public final float score;

    Entry(Catalogue.Item item, float score) {
      this.item = item;
      this.score = score;
    }
  }

  /** An item of the history, and what the score of a recommended one loses without it. */
  public static final class Reason {
    public final Catalogue.Item item;
    public final float pull;

    Reason(Catalogue.Item item, float pull) {
      this.item = item;
      this.pull = pull;
    }
  }
}
