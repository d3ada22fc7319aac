package edgepack.core;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Scores a history, and a search, and ranks the items. That takes its time: not for the main thread. */
public final class Recommender implements AutoCloseable {
  private static final double LEAST_AGREEMENT = 0.99; // of the lists that sit close to a tie
  private static final int MOST_REASONS = 12; // one inference each

  private final Contract contract;
  private final Engine engine;
  private final Catalogue catalogue;
  private final HistoryEncoder encoder;
  private final Goldens goldens;

  private Recommender(
      Contract contract, Engine engine, Catalogue catalogue, HistoryEncoder encoder, Goldens goldens) {
    this.contract = contract;
    this.engine = engine;
    this.catalogue = catalogue;
    this.encoder = encoder;
    this.goldens = goldens;
  }

  /** Reads and checks every file, then opens the engine. Throws EdgepackException. */
  public static Recommender load(Contract contract, Assets assets, Engine.Factory factory) {
    ByteBuffer model = assets.map(contract.model());
    mustBeIntact(contract, contract.model(), model);
    Map<String, byte[]> files = new HashMap<>();
    for (String name : contract.files.keySet()) {
      if (name.equals(contract.model())) continue;
      files.put(name, assets.read(name));
      mustBeIntact(contract, name, ByteBuffer.wrap(files.get(name)));
    }
    List<String> vocabulary = Catalogue.vocabulary(files.get("vocabulary.json"), contract.itemCount);
    Catalogue catalogue = Catalogue.read(vocabulary, files.get("catalogue.json"));
    Goldens goldens = Goldens.read(files.get("goldens.json"));
    HistoryEncoder encoder = new HistoryEncoder(vocabulary, contract.historyLength);
    return new Recommender(contract, factory.open(model, contract), catalogue, encoder, goldens);
  }

  private static void mustBeIntact(Contract contract, String name, ByteBuffer content) {
    if (Sha256.of(content).equals(contract.files.get(name).sha256)) return;
    String message = name + " is not the file that was embedded; nothing was run.";
    throw new EdgepackException(EdgepackException.Code.HASH_MISMATCH, message);
  }

  /** What there is to recommend; it may be read on any thread, {@link #item} as well. */
  public Catalogue catalogue() {
    return catalogue;
  }

  /** Returns the item of this id, null when the model does not know it. */
  public Catalogue.Item item(String id) {
    int index = encoder.index(id);
    return index == 0 ? null : item(index);
  }

  private Catalogue.Item item(int index) {
    return catalogue.items.get(index - 1);
  }

  /** Ranks the items for a history of ids, oldest first; its newest known ones count. */
  public Ranking recommend(List<String> history, Options options) {
    long begun = System.nanoTime();
    int k = options.k == 0 ? goldens.k : options.k;
    int[] known = encoder.known(history);
    float[] scores = scores(known, hashed(options.query));
    List<Ranking.Entry> entries = new ArrayList<>();
    for (int index : best(scores, k, known, encoder.known(options.exclude))) {
      entries.add(new Ranking.Entry(item(index), scores[index]));
    }
    return new Ranking(entries, encoder.unknown(history), (System.nanoTime() - begun) / 1e6);
  }

  /**
   * Returns for each of {@code ids} the items of the history that pulled it up, strongest first. Runs the
   * model once for each of the newest 12 of them.
   */
  public List<List<Ranking.Reason>> explain(List<String> history, List<String> ids, String query) {
    int[] known = encoder.known(history);
    int[] read = Arrays.copyOfRange(known, Math.max(0, known.length - contract.historyLength), known.length);
    int[] hashed = hashed(query);
    float[] whole = scores(read, hashed);
    Map<Integer, float[]> without = new LinkedHashMap<>();
    for (int one : newest(read, MOST_REASONS)) {
      without.put(one, scores(IntStream.of(read).filter(index -> index != one).toArray(), hashed));
    }
    return ids.stream().map(id -> reasons(encoder.index(id), whole, without)).collect(Collectors.toList());
  }

  private List<Ranking.Reason> reasons(int index, float[] whole, Map<Integer, float[]> without) {
    List<Ranking.Reason> reasons = new ArrayList<>();
    if (index == 0) return reasons;
    without.forEach((one, scores) -> {
      float pull = whole[index] - scores[index];
      if (pull > 0) reasons.add(new Ranking.Reason(item(one), pull));
    });
    reasons.sort((a, b) -> Float.compare(b.pull, a.pull));
    return reasons;
  }

  private static List<Integer> newest(int[] history, int most) {
    Set<Integer> distinct = new LinkedHashSet<>();
    for (int index : history) distinct.add(index);
    List<Integer> all = new ArrayList<>(distinct);
    return all.subList(Math.max(0, all.size() - most), all.size());
  }

  /** Runs the bundle's recorded inputs here and compares. */
  public SelfTest selfTest() {
    double agreed = 0;
    for (Goldens.Case one : goldens.random) {
      List<Integer> wanted = boxed(one.topK);
      List<Integer> found = answer(one);
      agreed += wanted.stream().filter(found::contains).count() / (double) wanted.size();
    }
    int same = 0;
    for (Goldens.Case one : goldens.cases) {
      List<Integer> found = answer(one);
      if (found.subList(0, Math.min(one.topK.length, found.size())).equals(boxed(one.topK))) same++;
    }
    boolean agrees = goldens.random.isEmpty() || agreed / goldens.random.size() >= LEAST_AGREEMENT;
    return new SelfTest(same, goldens.cases.size(), agrees && same == goldens.cases.size());
  }

  private List<Integer> answer(Goldens.Case one) {
    int[] query = contract.query == null ? null : Arrays.copyOf(one.query, contract.query.length);
    return boxed(best(scores(one.history, query), goldens.k, one.history, new int[0]));
  }

  private static List<Integer> boxed(int[] indices) {
    return IntStream.of(indices).boxed().collect(Collectors.toList());
  }

  private int[] hashed(String query) {
    return contract.query == null ? null : contract.query.hash(query);
  }

  private int[] best(float[] scores, int k, int[] history, int[] exclude) {
    boolean[] isOut = new boolean[scores.length];
    for (int index : exclude) isOut[index] = true;
    if (contract.filterSeen) for (int index : history) isOut[index] = true;
    return TopK.of(scores, k, index -> isOut[index]);
  }

  private synchronized float[] scores(int[] history, int[] query) {
    float[] scores = engine.scores(encoder.row(history), query);
    if (scores.length == contract.itemCount + 1) return scores;
    String message = "The engine gave " + scores.length + " scores for " + contract.itemCount + " items.";
    throw new EdgepackException(EdgepackException.Code.ENGINE, message);
  }

  @Override
  public synchronized void close() {
    engine.close();
  }
}
