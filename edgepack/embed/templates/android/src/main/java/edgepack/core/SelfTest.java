package edgepack.core;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** How the bundle's recorded lists came back on this device. */
public final class SelfTest {
  private static final Pattern TEXT = Pattern.compile("(passed|failed): (\\d{1,9}) of (\\d{1,9}) lists");

  /** How many came back exactly. */
  public final int same;
  public final int total;
  /** Whether all did, and those too close to a tie to be equal everywhere agree as they must. */
  public final boolean passed;

  SelfTest(int same, int total, boolean passed) {
    this.same = same;
    this.total = total;
    this.passed = passed;
  }

  @Override
  public String toString() {
    return (passed ? "passed: " : "failed: ") + same + " of " + total + " lists";
  }

  /** Returns what {@link #toString} wrote, null for anything else. */
  static SelfTest read(String text) {
    Matcher found = TEXT.matcher(text == null ? "" : text);
    if (!found.matches()) return null;
    int same = Integer.parseInt(found.group(2));
    return new SelfTest(same, Integer.parseInt(found.group(3)), found.group(1).equals("passed"));
  }
}
