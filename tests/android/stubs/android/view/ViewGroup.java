package android.view;

import android.content.Context;

public abstract class ViewGroup extends View {
  public ViewGroup(Context context) {
    super(context);
  }

  public native void addView(View child);

  public native void removeAllViews();

  public native int getChildCount();

  public native View getChildAt(int index);

  public native int indexOfChild(View child);

  public native View getFocusedChild();
}
