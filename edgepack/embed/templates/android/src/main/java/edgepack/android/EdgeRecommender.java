package edgepack.android;

import android.content.Context;
import edgepack.core.EdgepackException;
import edgepack.core.Engine;
import edgepack.core.Recommender;
import edgepack.core.Start;
import edgepack.model.Facts;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import java.util.function.Function;

/** The recommender of this app: everything that takes time happens on a thread of its own. */
public final class EdgeRecommender implements AutoCloseable {
  private final ExecutorService worker =
      Executors.newSingleThreadExecutor(work -> new Thread(work, "edgepack"));
  private final Executor callbacks;
  private final Listener listener;
  private Recommender recommender; // the worker's alone
  private volatile boolean closed;

  private EdgeRecommender(Executor callbacks, Listener listener) {
    this.callbacks = callbacks;
    this.listener = listener;
  }

  /** What an app wants to know. */
  public interface Listener {
    /** The recommender answers from now on; {@code start} says with which engine, and how its test went. */
    void onReady(Start start);

    /** Opening failed, or a question; the message is for the app's developer. */
    void onError(EdgepackException error);
  }

  /**
   * Checks the files, opens the engine and, when these files are new, runs their self-test.
   *
   * @param callbacks where the listener and the answers are called: {@code activity::runOnUiThread}
   * @param preferred engines to try before the standard one, a delegate's say; one that cannot be opened or
   *     fails the self-test is passed over
   */
  public static EdgeRecommender open(
      Context context, Executor callbacks, Listener listener, Engine.Factory... preferred) {
    EdgeRecommender opened = new EdgeRecommender(callbacks, listener);
    Context app = context.getApplicationContext(); // outlives the activity
    opened.work(() -> opened.start(app, Arrays.asList(preferred)));
    return opened;
  }

  private void start(Context app, List<Engine.Factory> preferred) {
    List<Engine.Factory> engines = new ArrayList<>(preferred);
    engines.add(Engines.standard());
    KeptTests memory = new KeptTests(app, Facts.CONTENT_HASH + " " + Facts.LITERT_VERSION);
    Start start = Start.of(Facts.CONTRACT, new AndroidAssets(app.getAssets()), memory, engines);
    recommender = start.recommender;
    call(() -> listener.onReady(start));
  }

  /**
   * Asks on the worker, {@code r -> r.recommend(history, options)} say, and hands the answer to the
   * callbacks' thread, questions one after the other. Nothing is answered where opening failed, or after
   * {@link #close}.
   */
  public <T> void ask(Function<Recommender, T> question, Consumer<T> answer) {
    work(() -> {
      if (recommender == null) return;
      T found = question.apply(recommender);
      call(() -> answer.accept(found));
    });
  }

  private void work(Runnable task) {
    if (closed) return;
    worker.execute(() -> {
      try {
        if (!closed) task.run();
      } catch (EdgepackException error) {
        call(() -> listener.onError(error));
      }
    });
  }

  private void call(Runnable task) {
    callbacks.execute(() -> {
      if (!closed) task.run();
    });
  }

  /** Lets the engine go once its last question is answered. Call it on the callbacks' thread. */
  @Override
  public void close() {
    if (closed) return;
    closed = true;
    worker.execute(() -> {
      if (recommender != null) recommender.close();
    });
    worker.shutdown();
  }
}
