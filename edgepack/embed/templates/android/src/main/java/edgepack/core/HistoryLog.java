package edgepack.core;

import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.UUID;

/** A history as text: to keep on the device, and as the log `user,item,time` that edgepack reads. */
public final class HistoryLog {
  private HistoryLog() {}

  /**
   * Returns the CSV file. The user's name is made anew each time and places stand for times, so that two
   * exports cannot be joined to one person.
   */
  public static String csv(List<String> ids) {
    String user = "device-" + UUID.randomUUID();
    StringBuilder out = new StringBuilder("user,item,time\n");
    int place = 0;
    for (String id : ids) out.append(user + ',' + field(id) + ',' + ++place + '\n');
    return out.toString();
  }

  /** Returns the ids as text for {@link #read}. */
  public static String written(List<String> ids) {
    return Json.written(ids);
  }

  /** Returns the ids that {@link #written} wrote; none for what somebody else wrote. */
  public static List<String> read(String text) {
    try {
      List<String> ids = Json.list("history", Json.read("history", text), String.class);
      ids.removeIf(Objects::isNull);
      return ids;
    } catch (EdgepackException error) {
      return new ArrayList<>();
    }
  }

  private static String field(String text) {
    boolean plain = text.chars().noneMatch(unit -> "\",\r\n".indexOf(unit) >= 0);
    return plain ? text : '"' + text.replace("\"", "\"\"") + '"';
  }
}
