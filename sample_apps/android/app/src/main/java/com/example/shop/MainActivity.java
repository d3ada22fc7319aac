package com.example.shop;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.text.Editable;
import android.text.TextWatcher;
import android.view.View;
import android.view.ViewGroup;
import android.widget.EditText;
import android.widget.TextView;
import edgepack.android.EdgeRecommender;
import edgepack.android.StoredHistory;
import edgepack.core.Catalogue;
import edgepack.core.EdgepackException;
import edgepack.core.Options;
import edgepack.core.Ranking;
import edgepack.core.Recommender;
import edgepack.core.SelfTest;
import edgepack.core.Start;
import edgepack.model.Facts;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.function.Consumer;
import java.util.stream.Collectors;

/** A shelf, what the shopper picked from it, and what the model makes of that. */
public final class MainActivity extends Activity implements EdgeRecommender.Listener, TextWatcher {
  private static final int SHELF_SIZE = 20;
  private static final int SAVE = 1;

  private final List<Double> latencies = new ArrayList<>();
  private EdgeRecommender edge;
  private StoredHistory history;
  private Recommender recommender; // its catalogue alone is read here: the rest takes time
  private volatile int newest; // the worker passes over questions that were overtaken

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    setContentView(R.layout.main);
    history = new StoredHistory(this);
    edge = EdgeRecommender.open(this, this::runOnUiThread, this);
  }

  @Override
  protected void onDestroy() {
    edge.close();
    super.onDestroy();
  }

  @Override
  public void onReady(Start start) {
    recommender = start.recommender;
    describe(start);
    EditText search = findViewById(R.id.search);
    String items = String.format(Locale.getDefault(), "%,d", Facts.CONTRACT.itemCount);
    search.setHint(getString(R.string.search, items));
    search.addTextChangedListener(this);
    findViewById(R.id.save).setOnClickListener(view -> save());
    findViewById(R.id.clear).setOnClickListener(view -> {
      history.clear();
      show();
    });
    show(R.id.status, "");
    findViewById(R.id.shop).setVisibility(View.VISIBLE);
    show();
  }

  @Override
  public void onError(EdgepackException error) {
    show(R.id.status, error.getMessage());
  }

  private void describe(Start start) {
    SelfTest test = start.selfTest;
    show(R.id.self_test, getString(test.passed ? R.string.passed : R.string.failed, test.same, test.total));
    show(
        R.id.engine,
        start.why.isEmpty()
            ? getString(R.string.engine, start.engine)
            : getString(R.string.engine_why, start.engine, start.why));
    String model = Facts.CONTRACT.model();
    long kilobytes = Math.max(1, Math.round(Facts.CONTRACT.files.get(model).bytes / 1000.0));
    show(R.id.model, getString(R.string.model, model, kilobytes, Facts.CONTRACT.itemCount));
    String content = Facts.CONTENT_HASH.substring(0, 12);
    show(R.id.content, getString(R.string.content, Facts.NAME, Facts.TARGET, content));
    show(R.id.notice, recommender.catalogue().notice);
  }

  /** What the worker finds out for one state of the screen. */
  private static final class Found {
    final Ranking ranking;
    final List<List<Ranking.Reason>> reasons;

    Found(Recommender recommender, List<String> picks, String query) {
      ranking = recommender.recommend(picks, Options.DEFAULT.query(query));
      List<String> ids = ranking.entries.stream().map(entry -> entry.item.id).collect(Collectors.toList());
      reasons = recommender.explain(picks, ids, query);
    }
  }

  private void show() {
    int asked = ++newest;
    List<String> picks = history.ids();
    String text = this.<EditText>findViewById(R.id.search).getText().toString();
    showPicks(picks);
    showShelf(Facts.CONTRACT.query == null ? text : "");
    edge.ask(
        recommender -> asked == newest ? new Found(recommender, picks, text) : null,
        found -> {
          if (found != null && asked == newest) showForYou(found);
        });
  }

  private void showPicks(List<String> picks) {
    refill(R.id.picks, chips -> {
      for (int i = picks.size() - 1; i >= 0; i--) addChip(chips, title(picks.get(i)), i); // the newest first
    });
    findViewById(R.id.no_picks).setVisibility(picks.isEmpty() ? View.VISIBLE : View.GONE);
    findViewById(R.id.actions).setVisibility(picks.isEmpty() ? View.GONE : View.VISIBLE);
  }

  private void addChip(ViewGroup chips, String title, int position) {
    TextView chip = (TextView) getLayoutInflater().inflate(R.layout.chip, chips, false);
    chip.setText(getString(R.string.pick, title));
    chip.setContentDescription(getString(R.string.remove, title));
    chip.setOnClickListener(view -> {
      history.removeAt(position);
      show();
    });
    chips.addView(chip);
  }

  private String title(String id) {
    Catalogue.Item item = recommender.item(id);
    return item == null ? id : item.title; // another model's item, picked before an update
  }

  private void showShelf(String text) {
    String wanted = text.trim().toLowerCase(Locale.ROOT);
    List<Catalogue.Item> items = recommender.catalogue().items.stream()
        .filter(item -> item.title.toLowerCase(Locale.ROOT).contains(wanted))
        .limit(SHELF_SIZE)
        .collect(Collectors.toList());
    refill(R.id.shelf, shelf -> items.forEach(item -> addRow(shelf, item, item.category)));
    findViewById(R.id.nothing_found).setVisibility(items.isEmpty() ? View.VISIBLE : View.GONE);
  }

  private void showForYou(Found found) {
    refill(R.id.for_you, list -> {
      for (int i = 0; i < found.ranking.entries.size(); i++) {
        List<Ranking.Reason> reasons = found.reasons.get(i);
        String because = reasons.isEmpty() ? "" : getString(R.string.because, reasons.get(0).item.title);
        addRow(list, found.ranking.entries.get(i).item, because);
      }
    });
    latencies.add(found.ranking.milliseconds);
    show(R.id.latency, getString(R.string.latency, median(latencies), latencies.size()));
  }

  private static double median(List<Double> values) {
    List<Double> sorted = new ArrayList<>(values);
    Collections.sort(sorted);
    return sorted.get(sorted.size() / 2);
  }

  private void addRow(ViewGroup list, Catalogue.Item item, String note) {
    View row = getLayoutInflater().inflate(R.layout.row, list, false);
    String price = recommender.catalogue().price(item, Locale.getDefault());
    show(row.findViewById(R.id.title), item.title);
    show(row.findViewById(R.id.note), note);
    show(row.findViewById(R.id.price), price);
    row.setContentDescription(getString(R.string.add, item.title, price, note));
    row.setOnClickListener(view -> {
      history.add(item.id);
      show();
    });
    list.addView(row);
  }

  /** Fills a list anew; the focus, if it was in there, stays at its place, or goes to the search. */
  private void refill(int id, Consumer<ViewGroup> rows) {
    ViewGroup list = findViewById(id);
    int place = list.indexOfChild(list.getFocusedChild());
    list.removeAllViews();
    rows.accept(list);
    if (place < 0) return;
    int last = list.getChildCount() - 1;
    View next = last < 0 ? findViewById(R.id.search) : list.getChildAt(Math.min(place, last));
    next.requestFocus();
  }

  private void show(int id, String text) {
    show(this.<TextView>findViewById(id), text);
  }

  /** Shows a text, which takes no room when there is none. */
  private static void show(TextView view, String text) {
    view.setText(text);
    view.setVisibility(text.isEmpty() ? View.GONE : View.VISIBLE);
  }

  private void save() {
    Intent intent = new Intent(Intent.ACTION_CREATE_DOCUMENT);
    intent.addCategory(Intent.CATEGORY_OPENABLE);
    intent.setType("text/csv");
    intent.putExtra(Intent.EXTRA_TITLE, "history.csv");
    startActivityForResult(intent, SAVE);
  }

  @Override
  protected void onActivityResult(int request, int result, Intent answer) {
    if (request != SAVE || result != RESULT_OK || answer == null) return;
    try (OutputStream file = getContentResolver().openOutputStream(answer.getData())) {
      file.write(history.exportLog().getBytes(StandardCharsets.UTF_8));
      show(R.id.status, getString(R.string.saved));
    } catch (IOException error) {
      show(R.id.status, getString(R.string.not_saved, error.getMessage()));
    }
  }

  @Override
  public void afterTextChanged(Editable text) {
    show();
  }

  @Override
  public void beforeTextChanged(CharSequence text, int start, int count, int after) {}

  @Override
  public void onTextChanged(CharSequence text, int start, int before, int count) {}
}
