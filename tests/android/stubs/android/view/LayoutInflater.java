package android.view;

public abstract class LayoutInflater {
  LayoutInflater() {}

  public native View inflate(int resource, ViewGroup root, boolean attachToRoot);
}
