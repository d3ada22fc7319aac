package edgepack.core;

import java.util.Arrays;
import java.util.function.IntPredicate;

/** The best scores. */
final class TopK {
  private TopK() {}

  /** Returns up to k indices of {@code scores}, best first, equal scores by lower index; never index 0. */
  static int[] of(float[] scores, int k, IntPredicate isExcluded) {
    int[] best = new int[Math.min(k, scores.length)];
    int found = 0;
    for (int index = 1; index < scores.length; index++) {
      if (isExcluded.test(index)) continue;
      int place = found;
      while (place > 0 && scores[index] > scores[best[place - 1]]) place--;
      if (place == best.length) continue;
      if (found < best.length) found++;
      System.arraycopy(best, place, best, place + 1, found - 1 - place);
      best[place] = index;
    }
    return Arrays.copyOf(best, found);
  }
}
