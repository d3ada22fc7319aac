package android.content;

import android.content.res.AssetManager;
import java.util.Locale;
import phone.Phone;

public abstract class Context {
  public static final int MODE_PRIVATE = 0;

  public Context getApplicationContext() {
    return this;
  }

  public AssetManager getAssets() {
    return new AssetManager();
  }

  public ContentResolver getContentResolver() {
    return new ContentResolver();
  }

  public SharedPreferences getSharedPreferences(String name, int mode) {
    return new KeptPreferences(name);
  }

  public final String getString(int resId) {
    return Phone.resources().string(resId);
  }

  public final String getString(int resId, Object... formatArgs) {
    return String.format(Locale.getDefault(), getString(resId), formatArgs);
  }
}
