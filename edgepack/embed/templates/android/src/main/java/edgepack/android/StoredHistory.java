package edgepack.android;

import android.content.Context;
import android.content.SharedPreferences;
import edgepack.core.HistoryLog;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** What the shopper took, oldest first, kept on this device alone. */
public final class StoredHistory {
  private static final String KEY = "ids";

  private final SharedPreferences kept;
  private List<String> ids;

  public StoredHistory(Context context) {
    kept = context.getSharedPreferences("edgepack-history", Context.MODE_PRIVATE);
    ids = HistoryLog.read(kept.getString(KEY, ""));
  }

  /** The items' ids. */
  public List<String> ids() {
    return Collections.unmodifiableList(ids);
  }

  public void add(String id) {
    List<String> changed = new ArrayList<>(ids);
    changed.add(id);
    keep(changed);
  }

  /** Takes one out; the oldest is at position 0. */
  public void removeAt(int position) {
    List<String> changed = new ArrayList<>(ids);
    changed.remove(position);
    keep(changed);
  }

  public void clear() {
    keep(new ArrayList<>());
  }

  /** The history as CSV `user,item,time` that edgepack reads. Send it only when the shopper says so. */
  public String exportLog() {
    return HistoryLog.csv(ids);
  }

  private void keep(List<String> changed) {
    ids = changed;
    kept.edit().putString(KEY, HistoryLog.written(changed)).apply();
  }
}
