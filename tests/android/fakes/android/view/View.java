package android.view;

import android.content.Context;
import android.widget.EditText;
import phone.Phone;

public class View {
  public static final int VISIBLE = 0;
  public static final int INVISIBLE = 4;
  public static final int GONE = 8;

  private int id;
  private int visibility = VISIBLE;
  private CharSequence description = "";
  private OnClickListener listener;
  ViewGroup parent;
  static View focused;

  public View(Context context) {
    Phone.mustBeMain();
  }

  @SuppressWarnings("unchecked") // as on a phone, where the caller's cast fails
  public final <T extends View> T findViewById(int id) {
    return (T) found(id);
  }

  View found(int wanted) {
    return id == wanted ? this : null;
  }

  public int getId() {
    return id;
  }

  public void setId(int id) {
    this.id = id;
  }

  public int getVisibility() {
    return visibility;
  }

  public void setVisibility(int visibility) {
    Phone.mustBeMain();
    this.visibility = visibility;
  }

  public CharSequence getContentDescription() {
    return description;
  }

  public void setContentDescription(CharSequence contentDescription) {
    Phone.mustBeMain();
    description = contentDescription;
  }

  public void setOnClickListener(OnClickListener l) {
    Phone.mustBeMain();
    listener = l;
  }

  public boolean performClick() {
    if (listener != null) listener.onClick(this);
    return listener != null;
  }

  /** As with a keyboard: what can be clicked, or typed into, takes the focus. */
  public final boolean requestFocus() {
    Phone.mustBeMain();
    if (listener == null && !(this instanceof EditText)) return false;
    focused = this;
    return true;
  }

  public boolean isFocused() {
    return focused == this;
  }

  public interface OnClickListener {
    void onClick(View v);
  }
}
