package edgepack.core;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The bundle's recorded inputs and lists. */
final class Goldens {
  private static final String FILE = "goldens.json";

  /** How many items a list has. */
  final int k;
  /** These must come back exactly. */
  final List<Case> cases;
  /** These sit too close to a tie to be equal everywhere. */
  final List<Case> random;

  private Goldens(int k, List<Case> cases, List<Case> random) {
    this.k = k;
    this.cases = cases;
    this.random = random;
  }

  /** Item indices of a history and n-gram ids of a search, without padding, and the list. */
  static final class Case {
    final int[] history;
    final int[] query;
    final int[] topK;

    private Case(Map<?, ?> told) {
      history = ints(told.get("history"));
      query = told.containsKey("query") ? ints(told.get("query")) : new int[0];
      topK = ints(told.get("top_k"));
    }
  }

  static Goldens read(byte[] file) {
    Map<?, ?> told = Json.object(FILE, Json.read(FILE, file));
    int k = Json.as(FILE, told.get("k"), Double.class).intValue();
    return new Goldens(k, cases(told.get("cases")), cases(told.get("random")));
  }

  private static List<Case> cases(Object told) {
    List<Case> cases = new ArrayList<>();
    for (Map<?, ?> one : Json.list(FILE, told, Map.class)) cases.add(new Case(one));
    return cases;
  }

  private static int[] ints(Object told) {
    return Json.list(FILE, told, Double.class).stream().mapToInt(Double::intValue).toArray();
  }
}
