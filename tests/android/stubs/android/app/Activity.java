package android.app;

import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.view.LayoutInflater;
import android.view.View;

public class Activity extends Context {
  public static final int RESULT_OK = -1;

  protected native void onCreate(Bundle savedInstanceState);

  protected native void onDestroy();

  protected native void onActivityResult(int requestCode, int resultCode, Intent data);

  public native void setContentView(int layoutResID);

  public native <T extends View> T findViewById(int id);

  public native LayoutInflater getLayoutInflater();

  public final native void runOnUiThread(Runnable action);

  public native void startActivityForResult(Intent intent, int requestCode);
}
