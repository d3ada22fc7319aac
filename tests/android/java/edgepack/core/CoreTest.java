package edgepack.core;

import static java.util.Arrays.asList;
import static java.util.Collections.emptyList;
import static java.util.Collections.singletonList;
import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import edgepack.core.EdgepackException.Code;
import edgepack.testing.MapMemory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.Test;

/** The library without Android and without a runtime. */
public final class CoreTest {
  private static final String GOLDENS =
      "{\"k\": 2, \"cases\": [{\"history\": [], \"top_k\": [5, 4]},"
          + " {\"history\": [2, 1], \"top_k\": [3, 5]}],"
          + " \"random\": [{\"history\": [3], \"top_k\": [4, 5]}]}";

  private final Map<String, String> files = new LinkedHashMap<>();
  private final List<int[]> asked = new ArrayList<>();
  private int historyLength = 3;
  private int itemCount = 5;
  private boolean filterSeen = true;
  private int closed;

  public CoreTest() {
    files.put("model.tflite", "model");
    files.put("vocabulary.json", "[\"\", \"a\", \"b\", \"c\", \"d\", \"e\"]");
    files.put("goldens.json", GOLDENS);
  }

  /** An item's score is its index, and that after an item of the history gets ten times its index more. */
  private final class Following implements Engine {
    @Override
    public float[] scores(int[] history, int[] queryOrNull) {
      asked.add(history);
      float[] scores = new float[itemCount + 1];
      for (int index = 0; index <= itemCount; index++) scores[index] = index;
      for (int index : history) if (index > 0 && index < itemCount) scores[index + 1] += 10 * index;
      scores[0] = 1000;
      return scores;
    }

    @Override
    public void close() {
      closed++;
    }
  }

  private final class Opener implements Engine.Factory {
    private final String name;
    private final Engine engine;
    private int opened;

    Opener(String name, Engine engineOrNull) {
      this.name = name;
      this.engine = engineOrNull;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public Engine open(ByteBuffer model, Contract contract) {
      opened++;
      if (engine == null) throw new EdgepackException(Code.ENGINE, "there is none here");
      return engine;
    }
  }

  private final class InMemory implements Assets {
    @Override
    public byte[] read(String name) {
      return files.get(name).getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public ByteBuffer map(String name) {
      return ByteBuffer.wrap(read(name));
    }
  }

  private Contract contract() {
    Contract.File[] told =
        files.keySet().stream()
            .map(name -> new Contract.File(name, Sha256.of(bytes(files.get(name))), 0))
            .toArray(Contract.File[]::new);
    Contract.Tensor input = new Contract.Tensor("history", "int32", 1, historyLength);
    Contract.Tensor output = new Contract.Tensor("scores", "float32", 1, itemCount + 1);
    return new Contract(historyLength, itemCount, filterSeen, null, singletonList(input), output, told);
  }

  private static ByteBuffer bytes(String text) {
    return ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
  }

  private Recommender loaded() {
    return Recommender.load(contract(), new InMemory(), new Opener("following", new Following()));
  }

  private static List<String> ids(Ranking ranking) {
    return ranking.entries.stream().map(entry -> entry.item.id).collect(Collectors.toList());
  }

  private static Code refused(Runnable work) {
    return assertThrows(EdgepackException.class, work::run).code;
  }

  @Test
  public void theNewestKnownItemsAreReadRightAlignedAndUnknownOnesAreNamed() {
    Recommender recommender = loaded();
    recommender.recommend(asList("e", "a", "gone", "b", "", "c"), Options.DEFAULT);
    recommender.recommend(singletonList("d"), Options.DEFAULT);
    Ranking nothing = recommender.recommend(emptyList(), Options.DEFAULT);
    assertArrayEquals(new int[] {1, 2, 3}, asked.get(0));
    assertArrayEquals(new int[] {0, 0, 4}, asked.get(1));
    assertArrayEquals(new int[] {0, 0, 0}, asked.get(2));
    assertEquals(asList("e", "d"), ids(nothing));
    assertEquals(asList("gone", ""), recommender.recommend(asList("gone", "a", ""), Options.DEFAULT).unknown);
  }

  @Test
  public void equalScoresOrderByLowerIndexAndPaddingIsNeverFound() {
    float[] scores = {9, 1, 3, 3, 2, 3};
    assertArrayEquals(new int[] {2, 3, 5, 4}, TopK.of(scores, 4, index -> false));
    assertArrayEquals(new int[] {3, 5}, TopK.of(scores, 2, index -> index == 2));
    assertArrayEquals(new int[] {2, 3, 5, 4, 1}, TopK.of(scores, 50, index -> false));
    assertArrayEquals(new int[] {1, 2, 3}, TopK.of(new float[] {0, -1, -1, -1, -1}, 3, index -> false));
    assertEquals(0, TopK.of(scores, 3, index -> true).length);
  }

  @Test
  public void topKIsASortOfEverything() {
    Random random = new Random(7);
    for (int round = 0; round < 200; round++) {
      float[] scores = new float[1 + random.nextInt(60)];
      for (int i = 0; i < scores.length; i++) scores[i] = random.nextInt(8);
      int k = random.nextInt(12);
      int[] sorted =
          IntStream.range(1, scores.length)
              .filter(index -> index % 7 != 0)
              .boxed()
              .sorted((a, b) -> scores[a] == scores[b] ? a - b : Float.compare(scores[b], scores[a]))
              .limit(k)
              .mapToInt(Integer::intValue)
              .toArray();
      assertArrayEquals(sorted, TopK.of(scores, k, index -> index % 7 == 0));
    }
  }

  @Test
  public void seenItemsAreLeftOutWhenTheContractSaysSoAndExcludedOnesAlways() {
    Options all = Options.DEFAULT.k(5);
    List<String> older = asList("e", "a", "b", "c"); // "e" is too old to be read, and seen all the same
    assertEquals(singletonList("d"), ids(loaded().recommend(older, all)));
    Options notC = all.exclude(asList("c", "gone"));
    assertEquals(asList("b", "d"), ids(loaded().recommend(asList("a", "e"), notC)));
    filterSeen = false;
    assertEquals(asList("b", "e", "d", "c", "a"), ids(loaded().recommend(asList("e", "a"), all)));
    assertEquals(asList("e", "d", "b", "a"), ids(loaded().recommend(singletonList("e"), notC)));
  }

  @Test
  public void fewerThanOneItemCannotBeAskedFor() {
    assertThrows(IllegalArgumentException.class, () -> Options.DEFAULT.k(0));
  }

  @Test
  public void aFileThatIsNotTheEmbeddedOneIsRefusedBeforeTheEngineOpens() {
    Contract contract = contract();
    for (String name : new ArrayList<>(files.keySet())) {
      Opener opener = new Opener("following", new Following());
      String kept = files.put(name, files.get(name) + " ");
      assertEquals(Code.HASH_MISMATCH, refused(() -> Recommender.load(contract, new InMemory(), opener)));
      assertEquals(0, opener.opened);
      files.put(name, kept);
    }
  }

  @Test
  public void aScoreTooFewIsTheEnginesFault() {
    Engine tooFew = new Engine() {
      @Override
      public float[] scores(int[] history, int[] queryOrNull) {
        return new float[itemCount];
      }

      @Override
      public void close() {}
    };
    Recommender recommender = Recommender.load(contract(), new InMemory(), new Opener("short", tooFew));
    assertEquals(Code.ENGINE, refused(() -> recommender.recommend(emptyList(), Options.DEFAULT)));
  }

  @Test
  public void theSelfTestPassesOnTheRecordedListsAndFailsOnOthers() {
    assertEquals("passed: 2 of 2 lists", loaded().selfTest().toString());
    files.put("goldens.json", GOLDENS.replace("[3, 5]", "[5, 3]"));
    assertEquals("failed: 1 of 2 lists", loaded().selfTest().toString());
    files.put("goldens.json", GOLDENS.replace("[4, 5]", "[4, 2]"));
    assertEquals("failed: 2 of 2 lists", loaded().selfTest().toString());
  }

  @Test
  public void aSelfTestIsReadBackAndNothingElseIs() {
    SelfTest kept = SelfTest.read("failed: 3 of 16 lists");
    assertEquals(3, kept.same);
    assertEquals(16, kept.total);
    assertFalse(kept.passed);
    assertNull(SelfTest.read(null));
    assertNull(SelfTest.read("passed: 99999999999 of 1 lists"));
  }

  @Test
  public void aReasonIsWhatTheScoreLosesWithoutTheItem() {
    List<String> shown = asList("c", "b", "e", "gone");
    List<List<Ranking.Reason>> reasons = loaded().explain(asList("c", "b", "a"), shown, "");
    assertEquals("b", reasons.get(0).get(0).item.id);
    assertEquals(20f, reasons.get(0).get(0).pull, 0);
    assertEquals("a", reasons.get(1).get(0).item.id);
    assertEquals(1, reasons.get(0).size());
    assertTrue(reasons.get(2).isEmpty());
    assertTrue(reasons.get(3).isEmpty());
  }

  @Test
  public void reasonsCostOneInferenceForEachOfTheNewestTwelveItems() {
    historyLength = 20;
    itemCount = 30;
    String[] ids = IntStream.rangeClosed(1, 30).mapToObj(i -> "i" + i).toArray(String[]::new);
    files.put("vocabulary.json", "[\"\", \"" + String.join("\", \"", ids) + "\"]");
    loaded().explain(asList(ids), singletonList("i30"), "");
    assertEquals(13, asked.size());
    assertTrue(asked.stream().skip(1).allMatch(row -> row[0] == 0 && row[19] > 0));
    asked.clear();
    loaded().explain(asList("i1", "i1", "i2"), singletonList("i3"), "");
    assertEquals(3, asked.size());
    assertArrayEquals(new int[] {0, 0, 2}, Arrays.copyOfRange(asked.get(1), 17, 20));
  }

  @Test
  public void theCatalogueNamesTheItemsAndWithoutOneTheirIdsDo() {
    assertEquals("c", loaded().item("c").title);
    assertNull(loaded().item("c").price);
    assertEquals("", loaded().catalogue().notice);
    assertNull(loaded().item("gone"));
    files.put(
        "catalogue.json",
        "{\"titles\": [\"\", \"Teal \\u2018mug\\u2019\", \"Lamp\", \"\", \"Vase\", \"Tray\"],"
            + " \"prices\": [null, 4.5, null, 1, 2, 3], \"categories\": null, \"currency\": \"GBP\","
            + " \"notice\": \"of a shop\"}");
    Catalogue catalogue = loaded().catalogue();
    Catalogue.Item mug = catalogue.items.get(0);
    assertEquals("Teal \u2018mug\u2019", mug.title);
    assertEquals("c", catalogue.items.get(2).title);
    assertEquals("", mug.category);
    assertEquals("\u00a34.50", catalogue.price(mug, Locale.UK));
    assertEquals("", catalogue.price(catalogue.items.get(1), Locale.UK));
    assertEquals("of a shop", catalogue.notice);
  }

  @Test
  public void aPriceInNoKnownCurrencyIsANumber() {
    files.put("catalogue.json", "{\"prices\": [null, 1234.5, 1, 1, 1, 1], \"currency\": \"\"}");
    Catalogue catalogue = loaded().catalogue();
    assertEquals("1,234.50", catalogue.price(catalogue.items.get(0), Locale.UK));
  }

  @Test
  public void aVocabularyOrCatalogueOfAnotherSizeIsMalformed() {
    files.put("catalogue.json", "{\"titles\": [\"\", \"a\"]}");
    assertEquals(Code.MALFORMED, refused(this::loaded));
    files.put("catalogue.json", "{\"titles\": \"a\"}");
    assertEquals(Code.MALFORMED, refused(this::loaded));
    files.remove("catalogue.json");
    files.put("vocabulary.json", "[\"\", \"a\"]");
    assertEquals(Code.MALFORMED, refused(this::loaded));
  }

  @Test
  public void anExportIsCsvUnderANameMadeAnewWithPlacesForTimes() {
    List<String> ids = asList("plain", "a,b", "say \"hi\"", "two\nlines", "\u00fcn\u00efcode");
    String[] parts = HistoryLog.csv(ids).split("(?<!two)\n");
    String user = parts[1].substring(0, parts[1].indexOf(','));
    assertTrue(user, user.matches("device-[0-9a-f-]{36}"));
    assertEquals("user,item,time", parts[0]);
    assertEquals(user + ",plain,1", parts[1]);
    assertEquals(user + ",\"a,b\",2", parts[2]);
    assertEquals(user + ",\"say \"\"hi\"\"\",3", parts[3]);
    assertEquals(user + ",\"two\nlines\",4", parts[4]);
    assertEquals(user + ",\u00fcn\u00efcode,5", parts[5]);
    assertNotEquals(HistoryLog.csv(ids), HistoryLog.csv(ids));
    assertEquals("user,item,time\n", HistoryLog.csv(emptyList()));
  }

  @Test
  public void aKeptHistoryComesBackAndWhatSomebodyElseWroteDoesNot() {
    List<String> ids = asList("plain", "\"quoted\\\"", "two\nlines\u0001", "\ud83d\udecb", "\ud83d", "");
    assertEquals(ids, HistoryLog.read(HistoryLog.written(ids)));
    assertTrue(HistoryLog.written(ids).chars().allMatch(unit -> unit < 128));
    for (String text : new String[] {"", "null", "{}", "[1]", "[\"a\"", "a,b"}) {
      assertEquals(text, emptyList(), HistoryLog.read(text));
    }
    assertEquals(singletonList("a"), HistoryLog.read("[null, \"a\"]"));
  }

  @Test
  public void jsonIsReadAsItStands() {
    String text = " {\"a\": [1, -2.5e1, true, false, null], \"b\": {}, \"\": \"\\u00e9\\n\\/\\\"\"} ";
    Map<?, ?> object = (Map<?, ?>) Json.read("x", text);
    assertEquals(asList(1.0, -25.0, true, false, null), object.get("a"));
    assertEquals(new HashMap<>(), object.get("b"));
    assertEquals("\u00e9\n/\"", object.get(""));
  }

  @Test
  public void whatIsNoJsonIsRefusedWithItsPlace() {
    String[] wrong = {
      "", "[1,]", "[1 2]", "{\"a\" 1}", "{\"a\": 1,}", "{a: 1}", "{\"a\": 1, \"a\": 2}", "[1] x", "[01]",
      "[1.]", "[+1]", "[.5]", "[NaN]", "[nul]", "'a'", "\"a", "\"\\x\"", "\"\\u12g4\"", "\"\\u12", "\"\t\"",
      "[1", "{\"a\": ", "tru",
      new String(new char[99]).replace("\0", "["),
    };
    for (String text : wrong) {
      EdgepackException error =
          assertThrows(text, EdgepackException.class, () -> Json.read("file.json", text));
      assertEquals(text, Code.MALFORMED, error.code);
      String told = "file\\.json: is no JSON, it has .* at character \\d+\\.";
      assertTrue(error.getMessage(), error.getMessage().matches(told));
    }
    byte[] latin = {'"', (byte) 0xe9, '"'};
    assertEquals(Code.MALFORMED, refused(() -> Json.read("file.json", latin)));
  }

  private Engine wrong() {
    return new Engine() {
      @Override
      public float[] scores(int[] history, int[] queryOrNull) {
        return new float[itemCount + 1];
      }

      @Override
      public void close() {
        closed++;
      }
    };
  }

  private Start started(Start.Memory memory, Engine.Factory... engines) {
    return Start.of(contract(), new InMemory(), memory, asList(engines));
  }

  @Test
  public void theFirstEngineThatReproducesTheListsIsTaken() {
    Opener first = new Opener("first", new Following());
    Start start = started(new MapMemory(), first, new Opener("last", new Following()));
    assertEquals("first", start.engine);
    assertEquals("", start.why);
    assertTrue(start.selfTest.passed);
    assertEquals(0, closed);
  }

  @Test
  public void enginesThatCannotBeOpenedOrAnswerOtherwiseArePassedOverOnceAndForAll() {
    MapMemory kept = new MapMemory();
    Opener none = new Opener("none", null);
    Opener wrong = new Opener("wrong", wrong());
    for (int times = 0; times < 2; times++) {
      Start start = started(kept, none, wrong, new Opener("last", new Following()));
      assertEquals("last", start.engine);
      assertEquals("none: there is none here; wrong: failed: 0 of 2 lists", start.why);
      assertTrue(start.selfTest.passed);
    }
    assertEquals(1, none.opened);
    assertEquals(1, wrong.opened);
    assertEquals(1, closed);
  }

  @Test
  public void anEngineThatTookTheAppWithItIsNotTriedAgain() {
    MapMemory kept = new MapMemory();
    Engine.Factory crash = new Engine.Factory() {
      @Override
      public String name() {
        return "crash";
      }

      @Override
      public Engine open(ByteBuffer model, Contract contract) {
        throw new ThreadDeath();
      }
    };
    Opener last = new Opener("last", new Following());
    assertThrows(ThreadDeath.class, () -> started(kept, crash, last));
    assertEquals("crash: ended the app when it was tried", started(kept, crash, last).why);
  }

  @Test
  public void anEngineThatFailsInItsSelfTestIsClosedAndPassedOver() {
    Engine failing = new Engine() {
      @Override
      public float[] scores(int[] history, int[] queryOrNull) {
        throw new EdgepackException(Code.ENGINE, "it failed");
      }

      @Override
      public void close() {
        closed++;
      }
    };
    Start start = started(new MapMemory(), new Opener("failing", failing), new Opener("last", new Following()));
    assertEquals("failing: it failed", start.why);
    assertEquals(1, closed);
  }

  @Test
  public void theLastEngineIsKeptWhateverItsSelfTestSays() {
    Start start = started(new MapMemory(), new Opener("last", wrong()));
    assertEquals("failed: 0 of 2 lists", start.selfTest.toString());
    assertEquals(0, closed);
  }

  @Test
  public void theSelfTestRunsOnceForTheSameFiles() {
    MapMemory kept = new MapMemory();
    for (int times = 0; times < 3; times++) {
      assertTrue(started(kept, new Opener("last", new Following())).selfTest.passed);
    }
    assertEquals(3, asked.size());
  }

  @Test
  public void anAlteredFileIsNoReasonForAnotherEngine() {
    Contract contract = contract();
    files.put("model.tflite", "muddle");
    Engine.Factory first = new Opener("first", new Following());
    List<Engine.Factory> engines = asList(first, new Opener("last", new Following()));
    assertEquals(Code.HASH_MISMATCH, refused(() -> Start.of(contract, new InMemory(), new MapMemory(), engines)));
  }
}
