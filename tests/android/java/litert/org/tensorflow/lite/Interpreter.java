package org.tensorflow.lite;

import edgepack.testing.LiteRtWorker;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Map;

/** LiteRT's interpreter, as far as the library uses it, with the model in the worker. */
public final class Interpreter implements AutoCloseable {
  private final LiteRtWorker worker;

  /** What the interpreter is asked for; one thread is what the worker runs on. */
  public static final class Options {
    private int threads;
    private Delegate delegate;

    public Options setNumThreads(int numThreads) {
      threads = numThreads;
      return this;
    }

    public Options addDelegate(Delegate delegate) {
      this.delegate = delegate;
      return this;
    }
  }

  public Interpreter(ByteBuffer model, Options options) {
    if (!model.isDirect() || options.threads != 1) throw new IllegalArgumentException("not as promised");
    if (options.delegate != null) throw new IllegalArgumentException("Failed to apply delegate");
    worker = new LiteRtWorker(model);
  }

  public Tensor getInputTensorFromSignature(String name, String signature) {
    return tensor(name);
  }

  public Tensor getOutputTensorFromSignature(String name, String signature) {
    return tensor(name);
  }

  private Tensor tensor(String name) {
    LiteRtWorker.Told told = worker.tensors.get(name);
    if (told == null) throw new IllegalArgumentException("Invalid tensor name " + name);
    return new Tensor(told);
  }

  public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs) {
    ByteBuffer raw = worker.run(row(inputs.get("history")), row(inputs.get("query")));
    // LiteRT puts as well: from where the buffer stands, which then stands at its end.
    ((ByteBuffer) outputs.values().iterator().next()).put(raw);
  }

  private static int[] row(Object input) {
    if (input == null) return null;
    ByteBuffer buffer = (ByteBuffer) input;
    boolean isNative = buffer.isDirect() && buffer.order() == ByteOrder.nativeOrder();
    if (!isNative) throw new IllegalArgumentException("no buffer for native code");
    int[] row = new int[buffer.capacity() / 4];
    for (int i = 0; i < row.length; i++) row[i] = buffer.getInt(4 * i); // wherever the buffer stands
    return row;
  }

  @Override
  public void close() {
    worker.close();
  }
}
