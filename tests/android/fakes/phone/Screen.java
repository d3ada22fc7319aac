package phone;

import android.view.View;
import android.view.ViewGroup;
import android.widget.EditText;
import android.widget.TextView;
import java.util.ArrayList;
import java.util.List;

/** What a person sees and does. */
final class Screen {
  private Screen() {}

  static String of(View view) {
    List<String> fields = new ArrayList<>();
    fields.add(field("id", Phone.resources().name(view.getId())));
    fields.add(field("description", String.valueOf(view.getContentDescription())));
    if (view.isFocused()) fields.add(field("focused", "true"));
    if (view instanceof TextView) {
      fields.add(field("text", text(view)));
      fields.add(field("hint", ((TextView) view).getHint().toString()));
    }
    List<String> children = new ArrayList<>();
    for (View child : visible(view)) children.add(of(child));
    fields.add("\"children\":[" + String.join(",", children) + "]");
    return "{" + String.join(",", fields) + "}";
  }

  /**
   * Clicks the first view that is described so or, without a description, says so; with a keyboard it has the
   * focus then.
   */
  static void click(View root, String description, boolean withKeyboard) {
    for (View view : all(root)) {
      String told = view.getContentDescription().toString();
      if (!(told.isEmpty() ? text(view) : told).equals(description)) continue;
      if ((!withKeyboard || view.requestFocus()) && view.performClick()) return;
    }
    throw new IllegalArgumentException("Nothing to click is called " + description);
  }

  static void type(View root, int id, String text) {
    for (View view : all(root)) {
      if (view.getId() == id) ((EditText) view).setText(text);
    }
  }

  private static String text(View view) {
    return view instanceof TextView ? ((TextView) view).getText().toString() : "";
  }

  private static List<View> all(View root) {
    List<View> found = new ArrayList<>();
    found.add(root);
    for (View child : visible(root)) found.addAll(all(child));
    return found;
  }

  private static List<View> visible(View view) {
    if (!(view instanceof ViewGroup)) return new ArrayList<>();
    List<View> children = new ArrayList<>(((ViewGroup) view).children());
    children.removeIf(child -> child.getVisibility() != View.VISIBLE);
    return children;
  }

  private static String field(String name, String text) {
    StringBuilder out = new StringBuilder("\"" + name + "\":\"");
    for (char unit : text.toCharArray()) out.append(String.format("\\u%04x", (int) unit));
    return out.append('"').toString();
  }
}
