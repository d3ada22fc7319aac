package android.content;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.util.Properties;
import phone.Phone;

/** Preferences in a file, so that they outlive the app. */
final class KeptPreferences implements SharedPreferences {
  private final File file;
  private final Properties kept = new Properties();

  KeptPreferences(String name) {
    try {
      file = Phone.file(name + ".properties");
      if (!file.exists()) return;
      try (InputStream stream = new FileInputStream(file)) {
        kept.load(stream);
      }
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  @Override
  public synchronized String getString(String key, String defValue) {
    return kept.getProperty(key, defValue);
  }

  @Override
  public Editor edit() {
    return new Changes();
  }

  private synchronized void change(boolean cleared, Properties changed) {
    if (cleared) kept.clear();
    kept.putAll(changed);
    try (OutputStream stream = new FileOutputStream(file)) {
      kept.store(stream, null);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private final class Changes implements Editor {
    private final Properties changed = new Properties();
    private boolean cleared;

    @Override
    public Editor putString(String key, String value) {
      changed.setProperty(key, value);
      return this;
    }

    @Override
    public Editor clear() {
      cleared = true; // before all that is put, in whatever order the two are asked for
      return this;
    }

    @Override
    public boolean commit() {
      change(cleared, changed);
      return true;
    }

    @Override
    public void apply() {
      commit();
    }
  }
}
