package android.app;

import android.content.Context;
import android.content.Intent;
import android.net.Uri;
import android.os.Bundle;
import android.view.LayoutInflater;
import android.view.View;
import java.io.IOException;
import java.io.UncheckedIOException;
import phone.Phone;

public class Activity extends Context {
  public static final int RESULT_OK = -1;

  private final LayoutInflater inflater = new LayoutInflater(this);
  private View content;

  public final void start() {
    onCreate(null);
  }

  public final void end() {
    onDestroy();
  }

  public final View content() {
    return content;
  }

  protected void onCreate(Bundle savedInstanceState) {}

  protected void onDestroy() {}

  protected void onActivityResult(int requestCode, int resultCode, Intent data) {}

  public void setContentView(int layoutResID) {
    content = inflater.inflate(layoutResID, null, false);
  }

  public <T extends View> T findViewById(int id) {
    return content.findViewById(id);
  }

  public LayoutInflater getLayoutInflater() {
    return inflater;
  }

  public final void runOnUiThread(Runnable action) {
    if (Phone.isMain()) {
      action.run();
    } else {
      Phone.post(action);
    }
  }

  /** The shopper agrees to the file that the app proposes. */
  public void startActivityForResult(Intent intent, int requestCode) {
    Phone.mustBeMain();
    if (!intent.asksForDocument()) throw new IllegalArgumentException("No other app answers " + intent);
    try {
      Uri chosen = new Uri(Phone.file(intent.getExtra(Intent.EXTRA_TITLE)));
      Phone.post(() -> onActivityResult(requestCode, RESULT_OK, new Intent("").setData(chosen)));
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
