import edgepack.core.QueryHasher;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;

/** Reads texts as code points in decimal, one text a line, and prints the ids of each. */
public final class QueryVectors {
  public static void main(String[] words) throws Exception {
    int length = Integer.parseInt(words[1]);
    int buckets = Integer.parseInt(words[2]);
    int[] sizes = Arrays.stream(words[3].split(",")).mapToInt(Integer::parseInt).toArray();
    int seed = Integer.parseInt(words[4]);
    QueryHasher hasher = new QueryHasher(words[0], length, buckets, sizes, seed, Integer.parseInt(words[5]));
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    StringBuilder out = new StringBuilder();
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      StringBuilder text = new StringBuilder();
      for (String point : line.split(" ")) {
        if (!point.isEmpty()) text.appendCodePoint(Integer.parseInt(point));
      }
      out.append(Arrays.toString(hasher.hash(text.toString()))).append('\n');
    }
    System.out.print(out);
  }
}
