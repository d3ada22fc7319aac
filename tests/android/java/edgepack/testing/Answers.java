package edgepack.testing;

import edgepack.android.Engines;
import edgepack.android.LiteRtEngine;
import edgepack.core.EdgepackException;
import edgepack.core.Engine;
import edgepack.core.Options;
import edgepack.core.Ranking;
import edgepack.core.Recommender;
import edgepack.core.Start;
import edgepack.jvm.FolderAssets;
import edgepack.model.Facts;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import org.tensorflow.lite.Delegate;

/**
 * Starts the bundle of a folder of assets and prints engine, self-test and why this engine; the word
 * `delegate` puts one before it that cannot be used. Then reads lines of a search and the ids of a history, and prints a
 * line for each: id=score. All between tabs.
 */
public final class Answers {
  private static PrintStream out;

  private Answers() {}

  public static void main(String[] words) throws IOException {
    out = new PrintStream(System.out, true, "UTF-8");
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    List<Engine.Factory> engines = new ArrayList<>();
    if (words.length > 1) engines.add(LiteRtEngine.with("GPU", Unusable::new));
    engines.add(Engines.standard());
    try {
      Start start = Start.of(Facts.CONTRACT, new FolderAssets(Paths.get(words[0])), new MapMemory(), engines);
      out.println(start.engine + "\t" + start.selfTest + "\t" + start.why);
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        out.println(answer(start.recommender, line.split("\t", -1)));
      }
      start.recommender.close();
    } catch (EdgepackException error) {
      out.println(error.code + "\t" + error.getMessage());
    }
  }

  private static String answer(Recommender recommender, String[] words) {
    List<String> history = Arrays.asList(words).subList(1, words.length);
    Ranking ranking = recommender.recommend(history, Options.DEFAULT.query(words[0]));
    return ranking.entries.stream()
        .map(one -> one.item.id + "=" + one.score)
        .collect(Collectors.joining("\t"));
  }

  private static final class Unusable implements Delegate {
    @Override
    public long getNativeHandle() {
      return 0;
    }

    @Override
    public void close() {
      out.println("delegate closed");
    }
  }
}
