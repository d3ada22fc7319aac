package edgepack.jvm;

import edgepack.core.Contract;
import edgepack.core.Engine;
import edgepack.core.Options;
import edgepack.core.Ranking;
import edgepack.core.Recommender;
import edgepack.model.Facts;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Ranks histories with the embedded code: lines of item indices come in, lines of `index:score` go out. Words:
 * the folder of assets, how many items, and the file of the scores of every row, float32, little-endian. Without
 * the file it prints the rows that the model has to score.
 */
public final class Lists {
  private Lists() {}

  public static void main(String[] words) throws IOException {
    Path scores = words.length > 2 ? Paths.get(words[2]) : null;
    Recommender recommender =
        Recommender.load(Facts.CONTRACT, new FolderAssets(Paths.get(words[0])), new Given.Opener(scores));
    Map<String, Integer> indices = new HashMap<>();
    for (int i = 0; i < recommender.catalogue().items.size(); i++) {
      indices.put(recommender.catalogue().items.get(i).id, i + 1);
    }
    Options options = Options.DEFAULT.k(Integer.parseInt(words[1]));
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      Ranking ranking = recommender.recommend(history(recommender, line), options);
      if (scores != null) System.out.println(told(ranking, indices));
    }
  }

  private static List<String> history(Recommender recommender, String line) {
    List<String> ids = new ArrayList<>();
    for (String word : line.split(" ")) {
      if (!word.isEmpty()) ids.add(recommender.catalogue().items.get(Integer.parseInt(word) - 1).id);
    }
    return ids;
  }

  private static String told(Ranking ranking, Map<String, Integer> indices) {
    return ranking.entries.stream()
        .map(one -> indices.get(one.item.id) + ":" + one.score)
        .collect(Collectors.joining(" "));
  }

  /** An engine whose answers were worked out elsewhere; without them it prints what it is asked. */
  private static final class Given implements Engine {
    private final ByteBuffer scoresOrNull;
    private final int width;

    private Given(ByteBuffer scoresOrNull, int width) {
      this.scoresOrNull = scoresOrNull;
      this.width = width;
    }

    private static final class Opener implements Factory {
      private final Path scoresOrNull;

      private Opener(Path scoresOrNull) {
        this.scoresOrNull = scoresOrNull;
      }

      @Override
      public String name() {
        return "answers from elsewhere";
      }

      @Override
      public Engine open(ByteBuffer model, Contract contract) {
        try {
          byte[] scores = scoresOrNull == null ? null : Files.readAllBytes(scoresOrNull);
          ByteBuffer read = scores == null ? null : ByteBuffer.wrap(scores).order(ByteOrder.LITTLE_ENDIAN);
          return new Given(read, contract.itemCount + 1);
        } catch (IOException error) {
          throw new IllegalStateException(error);
        }
      }
    }

    @Override
    public float[] scores(int[] history, int[] queryOrNull) {
      float[] scores = new float[width];
      if (scoresOrNull == null) {
        System.out.println(IntStream.of(history).mapToObj(String::valueOf).collect(Collectors.joining(" ")));
      } else {
        for (int i = 0; i < width; i++) scores[i] = scoresOrNull.getFloat();
      }
      return scores;
    }

    @Override
    public void close() {}
  }
}
