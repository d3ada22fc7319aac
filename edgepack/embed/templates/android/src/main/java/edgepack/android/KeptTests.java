package edgepack.android;

import android.content.Context;
import android.content.SharedPreferences;
import edgepack.core.Start;

/** What the self-tests of these very files with this very runtime said. */
final class KeptTests implements Start.Memory {
  private static final String OF = "of";

  private final SharedPreferences kept;

  /** Takes what identifies files and runtime; what is kept of others is forgotten. */
  KeptTests(Context context, String of) {
    kept = context.getSharedPreferences("edgepack-self-test", Context.MODE_PRIVATE);
    if (!of.equals(kept.getString(OF, null))) kept.edit().clear().putString(OF, of).commit();
  }

  @Override
  public String get(String key) {
    return kept.getString(key, null);
  }

  @Override
  public void put(String key, String value) {
    kept.edit().putString(key, value).commit();
  }
}
