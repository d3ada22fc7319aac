package android.view;

import android.content.Context;
import android.widget.TextView;
import org.w3c.dom.Element;
import org.w3c.dom.Node;
import phone.Phone;

/** Makes the views of a layout, with what can be read of them; how they look is not its matter. */
public class LayoutInflater {
  private static final int[] VISIBILITIES = {View.VISIBLE, View.INVISIBLE, View.GONE};

  private final Context context;

  public LayoutInflater(Context context) {
    this.context = context;
  }

  public View inflate(int resource, ViewGroup root, boolean attachToRoot) {
    if (attachToRoot) throw new UnsupportedOperationException();
    return view(Phone.resources().layout(resource));
  }

  private View view(Element element) {
    View view = made(element.getTagName());
    if (element.hasAttribute("id")) view.setId(number(element, "id"));
    if (element.hasAttribute("visibility")) view.setVisibility(VISIBILITIES[number(element, "visibility")]);
    String description = "contentDescription";
    if (element.hasAttribute(description)) view.setContentDescription(text(element, description));
    if (element.hasAttribute("text")) ((TextView) view).setText(text(element, "text"));
    for (Node child = element.getFirstChild(); child != null; child = child.getNextSibling()) {
      ((ViewGroup) view).addView(view((Element) child));
    }
    return view;
  }

  private View made(String tag) {
    try {
      Class<? extends View> type = Class.forName("android.widget." + tag).asSubclass(View.class);
      return type.getDeclaredConstructor(Context.class).newInstance(context);
    } catch (ReflectiveOperationException error) {
      throw new IllegalArgumentException("No fake of " + tag, error);
    }
  }

  private String text(Element element, String attribute) {
    return context.getString(number(element, attribute));
  }

  private static int number(Element element, String attribute) {
    return Integer.decode(element.getAttribute(attribute));
  }
}
