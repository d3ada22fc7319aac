package android.view;

import android.content.Context;

public class View {
  public static final int VISIBLE = 0;
  public static final int GONE = 8;

  public View(Context context) {}

  public final native <T extends View> T findViewById(int id);

  public native void setVisibility(int visibility);

  public native void setContentDescription(CharSequence contentDescription);

  public final native boolean requestFocus();

  public native void setOnClickListener(OnClickListener l);

  public interface OnClickListener {
    void onClick(View v);
  }
}
