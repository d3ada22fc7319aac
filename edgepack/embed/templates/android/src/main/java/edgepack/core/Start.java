package edgepack.core;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.stream.Collectors;

/** A recommender that was opened and tested: which engine it got, and why that one. */
public final class Start {
  private static final String BEGUN = "ended the app when it was tried";

  public final Recommender recommender;
  /** The engine's name. */
  public final String engine;
  /** Why the engines before it were passed over; "" when it was the first. */
  public final String why;
  /** How the self-test went, now or when the engine was first tried. */
  public final SelfTest selfTest;

  private Start(Recommender recommender, String engine, List<String> refused, SelfTest selfTest) {
    this.recommender = recommender;
    this.engine = engine;
    this.why = refused.stream().collect(Collectors.joining("; "));
    this.selfTest = selfTest;
  }

  /** What is kept between starts of the app, for these files and this version of the runtime alone. */
  public interface Memory {
    /** Returns what was put there; null when nothing was. */
    String get(String key);

    /** Keeps a value, which is safe once this returns. */
    void put(String key, String value);
  }

  /**
   * Opens the first engine that reproduces the recorded lists, or the last, whatever its self-test says. An
   * engine that failed, or never came back, is not tried again. Throws EdgepackException when the last cannot
   * be opened either, or a file is not what it should be.
   */
  public static Start of(Contract contract, Assets assets, Memory memory, List<Engine.Factory> engines) {
    Function<Engine.Factory, Recommender> load = engine -> Recommender.load(contract, assets, engine);
    List<String> refused = new ArrayList<>();
    for (Engine.Factory engine : engines.subList(0, engines.size() - 1)) {
      Start start = attempted(engine, load, memory, refused);
      if (start != null) return start;
      refused.add(engine.name() + ": " + memory.get(engine.name()));
    }
    Engine.Factory last = engines.get(engines.size() - 1);
    return tested(last, load.apply(last), memory, refused);
  }

  /** Returns null for an engine that must be passed over; the memory then says why. */
  private static Start attempted(
      Engine.Factory engine,
      Function<Engine.Factory, Recommender> load,
      Memory memory,
      List<String> refused) {
    String record = memory.get(engine.name());
    SelfTest kept = SelfTest.read(record);
    if (kept == null ? record != null : !kept.passed) return null;
    if (kept == null) memory.put(engine.name(), BEGUN); // its native code may take the app with it
    Recommender opened = null;
    try {
      opened = load.apply(engine);
      Start start = tested(engine, opened, memory, refused);
      if (start.selfTest.passed) return start;
    } catch (EdgepackException error) {
      if (error.code != EdgepackException.Code.ENGINE) throw error;
      memory.put(engine.name(), error.getMessage());
    }
    if (opened != null) opened.close();
    return null;
  }

  private static Start tested(
      Engine.Factory engine, Recommender recommender, Memory memory, List<String> refused) {
    SelfTest test = SelfTest.read(memory.get(engine.name()));
    if (test == null) {
      test = recommender.selfTest();
      memory.put(engine.name(), test.toString());
    }
    return new Start(recommender, engine.name(), refused, test);
  }
}
