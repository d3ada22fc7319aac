package android.content;

import android.net.Uri;
import java.util.HashMap;
import java.util.Map;

public class Intent {
  public static final String ACTION_CREATE_DOCUMENT = "android.intent.action.CREATE_DOCUMENT";
  public static final String CATEGORY_OPENABLE = "android.intent.category.OPENABLE";
  public static final String EXTRA_TITLE = "android.intent.extra.TITLE";

  private final String action;
  private final Map<String, String> extras = new HashMap<>();
  private String category;
  private String type;
  private Uri data;

  public Intent(String action) {
    this.action = action;
  }

  public Intent addCategory(String category) {
    this.category = category;
    return this;
  }

  public Intent setType(String type) {
    this.type = type;
    return this;
  }

  public Intent putExtra(String name, String value) {
    extras.put(name, value);
    return this;
  }

  public String getExtra(String name) {
    return extras.get(name);
  }

  public Intent setData(Uri data) {
    this.data = data;
    return this;
  }

  public Uri getData() {
    return data;
  }

  /** The system's file chooser wants all four. */
  public boolean asksForDocument() {
    return action.equals(ACTION_CREATE_DOCUMENT)
        && CATEGORY_OPENABLE.equals(category)
        && type != null
        && extras.containsKey(EXTRA_TITLE);
  }

  @Override
  public String toString() {
    return action + " " + category + " " + type + " " + extras;
  }
}
