package android.content;

import android.content.res.AssetManager;

public abstract class Context {
  public static final int MODE_PRIVATE = 0;

  public native Context getApplicationContext();

  public native AssetManager getAssets();

  public native ContentResolver getContentResolver();

  public native SharedPreferences getSharedPreferences(String name, int mode);

  public final native String getString(int resId);

  public final native String getString(int resId, Object... formatArgs);
}
