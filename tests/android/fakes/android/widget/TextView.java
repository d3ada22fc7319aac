package android.widget;

import android.content.Context;
import android.text.Editable;
import android.text.TextWatcher;
import android.view.View;
import java.util.ArrayList;
import java.util.List;
import phone.Phone;

public class TextView extends View {
  private final List<TextWatcher> watchers = new ArrayList<>();
  private CharSequence text = "";
  private CharSequence hint = "";

  public TextView(Context context) {
    super(context);
  }

  public CharSequence getText() {
    return text;
  }

  public final void setText(CharSequence text) {
    Phone.mustBeMain();
    CharSequence before = this.text;
    for (TextWatcher one : watchers) one.beforeTextChanged(before, 0, before.length(), text.length());
    this.text = text;
    for (TextWatcher one : watchers) one.onTextChanged(text, 0, before.length(), text.length());
    for (TextWatcher one : watchers) one.afterTextChanged((Editable) getText());
  }

  public CharSequence getHint() {
    return hint;
  }

  public final void setHint(CharSequence hint) {
    Phone.mustBeMain();
    this.hint = hint;
  }

  public void addTextChangedListener(TextWatcher watcher) {
    watchers.add(watcher);
  }
}
