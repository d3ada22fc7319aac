package phone;

import android.app.Activity;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Starts an activity out of an APK and does what lines on stdin say: `tap DESCRIPTION`, `press DESCRIPTION` (with
 * a keyboard), `type ID TEXT`, `back`. Prints the screen as a line of JSON whenever app and worker have come to rest.
 *
 * <p>The main thread is the activity's, as on a phone.
 */
public final class Phone {
  private static final LinkedBlockingQueue<Runnable> POSTED = new LinkedBlockingQueue<>();
  private static Thread main;
  private static File apk;
  private static File storage;
  private static Resources resources;

  private Phone() {}

  /** Takes the APK, its resources as text, a folder for what the app keeps, and the activity's class. */
  public static void main(String[] words) throws Exception {
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    main = Thread.currentThread();
    Thread.setDefaultUncaughtExceptionHandler(Phone::crash);
    apk = new File(words[0]);
    resources = new Resources(new File(words[1]));
    storage = new File(words[2]);
    Class<? extends Activity> type = Class.forName(words[3]).asSubclass(Activity.class);
    Activity activity = type.getDeclaredConstructor().newInstance();
    activity.start();
    settle(activity);
    out.println(Screen.of(activity.content()));
    for (String line = lines.readLine(); line != null && !line.equals("back"); line = lines.readLine()) {
      obey(activity, line.split(" ", 3));
      settle(activity);
      out.println(Screen.of(activity.content()));
    }
    activity.end();
    settle(activity);
  }

  /** An exception that no thread caught ends the app, as on a phone. */
  private static void crash(Thread thread, Throwable error) {
    error.printStackTrace();
    Runtime.getRuntime().halt(1);
  }

  private static void obey(Activity activity, String[] words) {
    if (words[0].equals("type")) {
      Screen.type(activity.content(), resources.id(words[1]), words.length > 2 ? words[2] : "");
    } else {
      String description = String.join(" ", words).substring(words[0].length() + 1);
      Screen.click(activity.content(), description, words[0].equals("press"));
    }
  }

  /** Does what is posted, and lets the workers do theirs, until neither has left anything to the other. */
  private static void settle(Activity activity) throws Exception {
    do {
      while (!POSTED.isEmpty()) POSTED.take().run();
      for (ExecutorService worker : workers(activity)) {
        if (worker.isShutdown()) {
          worker.awaitTermination(1, TimeUnit.MINUTES);
        } else {
          worker.submit(() -> {}).get(1, TimeUnit.MINUTES); // done when all that was asked before is
        }
      }
    } while (!POSTED.isEmpty());
  }

  /** Returns the executors that the activity's parts have in their fields. */
  private static List<ExecutorService> workers(Activity activity) throws IllegalAccessException {
    List<ExecutorService> found = new ArrayList<>();
    for (Object part : values(activity, "edgepack.android.")) {
      for (Object worker : values(part, "java.util.concurrent.Exec")) {
        if (worker instanceof ExecutorService) found.add((ExecutorService) worker);
      }
    }
    return found;
  }

  private static List<Object> values(Object owner, String type) throws IllegalAccessException {
    List<Object> found = new ArrayList<>();
    for (Field field : owner.getClass().getDeclaredFields()) {
      if (!field.getType().getName().startsWith(type)) continue;
      field.setAccessible(true);
      if (field.get(owner) != null) found.add(field.get(owner));
    }
    return found;
  }

  public static void post(Runnable action) {
    POSTED.add(action);
  }

  public static boolean isMain() {
    return Thread.currentThread() == main;
  }

  /** What a phone does when another thread touches a view. */
  public static void mustBeMain() {
    if (!isMain()) throw new IllegalStateException("Only the thread that created a view can touch it.");
  }

  public static File apk() {
    return apk;
  }

  public static File file(String name) throws IOException {
    if (!storage.isDirectory() && !storage.mkdirs()) throw new IOException(storage + " cannot be made");
    return new File(storage, name);
  }

  public static Resources resources() {
    return resources;
  }
}
