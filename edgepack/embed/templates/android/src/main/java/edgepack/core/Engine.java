package edgepack.core;

import java.nio.ByteBuffer;

/** What runs the model: one row in, one row of scores out, one call at a time. */
public interface Engine extends AutoCloseable {
  /**
   * Returns the scores, float32 [V + 1].
   *
   * @param history int32 [L], right-aligned, 0 = padding
   * @param queryOrNull int32 [Q], left-aligned, 0 = padding; null for a model that takes no search
   */
  float[] scores(int[] history, int[] queryOrNull);

  @Override
  void close();

  /** Opens an engine for a model that was checked already. */
  interface Factory {
    /** What the engine is called, for people and as the key of its self-test. */
    String name();

    /** Opens it. Throws EdgepackException when this device has no such engine, or the model does not fit. */
    Engine open(ByteBuffer model, Contract contract);
  }
}
