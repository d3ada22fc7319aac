package edgepack.testing;

import edgepack.core.Contract;
import edgepack.core.Engine;
import java.nio.ByteBuffer;

/** The real LiteRT under the app's Java: {@code -Dedgepack.engine=edgepack.testing.WorkerEngine$Opener}. */
public final class WorkerEngine implements Engine {
  private final LiteRtWorker worker;
  private final LiteRtWorker.Told output;

  private WorkerEngine(LiteRtWorker worker, String output) {
    this.worker = worker;
    this.output = worker.tensors.get(output);
  }

  /** What {@code edgepack.engine} names. */
  public static final class Opener implements Factory {
    @Override
    public String name() {
      return "LiteRT in Python";
    }

    @Override
    public Engine open(ByteBuffer model, Contract contract) {
      return new WorkerEngine(new LiteRtWorker(model), contract.output.name);
    }
  }

  @Override
  public float[] scores(int[] history, int[] queryOrNull) {
    ByteBuffer raw = worker.run(history, queryOrNull);
    float[] scores = new float[output.shape[1]];
    boolean isInt8 = output.dtype.equals("int8");
    for (int i = 0; i < scores.length; i++) {
      scores[i] = isInt8 ? (raw.get(i) - output.zeroPoint) * output.scale : raw.getFloat(4 * i);
    }
    return scores;
  }

  @Override
  public void close() {
    worker.close();
  }
}
