package android.view;

import android.content.Context;
import java.util.ArrayList;
import java.util.List;
import phone.Phone;

public abstract class ViewGroup extends View {
  private final List<View> children = new ArrayList<>();

  public ViewGroup(Context context) {
    super(context);
  }

  public void addView(View child) {
    Phone.mustBeMain();
    if (child.parent != null) throw new IllegalStateException("The specified child already has a parent.");
    child.parent = this;
    children.add(child);
  }

  public void removeAllViews() {
    Phone.mustBeMain();
    if (getFocusedChild() != null) focused = null;
    for (View child : children) child.parent = null;
    children.clear();
  }

  public int getChildCount() {
    return children.size();
  }

  public View getChildAt(int index) {
    return children.get(index);
  }

  public int indexOfChild(View child) {
    return children.indexOf(child);
  }

  public View getFocusedChild() {
    View child = focused;
    while (child != null && child.parent != this) child = child.parent;
    return child;
  }

  public List<View> children() {
    return children;
  }

  @Override
  View found(int wanted) {
    View found = super.found(wanted);
    for (int i = 0; found == null && i < children.size(); i++) found = children.get(i).found(wanted);
    return found;
  }
}
