package org.tensorflow.lite;

import edgepack.testing.LiteRtWorker;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Locale;
import java.util.Map;
import java.util.stream.IntStream;

/** LiteRT's interpreter as far as the library uses it; the kernels are those of LiteRT for Python. */
public final class Interpreter implements AutoCloseable {
  private final LiteRtWorker worker;

  public Interpreter(ByteBuffer byteBuffer, Options options) {
    if (!byteBuffer.isDirect()) throw new IllegalArgumentException("Model ByteBuffer should be mapped.");
    if (options.threads != 1) throw new IllegalArgumentException("not the one thread that was measured");
    if (options.delegate != null) throw new IllegalArgumentException("Internal error: Failed to apply delegate");
    worker = new LiteRtWorker(byteBuffer);
  }

  public Tensor getInputTensorFromSignature(String inputName, String signatureKey) {
    return tensor(inputName);
  }

  public Tensor getOutputTensorFromSignature(String outputName, String signatureKey) {
    return tensor(outputName);
  }

  private Tensor tensor(String name) {
    LiteRtWorker.Told told = worker.tensors.get(name);
    if (told == null) throw new IllegalArgumentException("Invalid tensor name provided (" + name + ")");
    return new TensorImpl(told);
  }

  public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs) {
    ByteBuffer scores = worker.run(row(inputs, "history"), row(inputs, "query"));
    ((ByteBuffer) outputs.values().iterator().next()).put(scores); // from where it stands
  }

  /** Native code reads a direct buffer from its beginning, wherever it stands. */
  private int[] row(Map<String, Object> inputs, String name) {
    ByteBuffer buffer = (ByteBuffer) inputs.get(name);
    if (buffer == null) return null;
    if (buffer.capacity() != tensor(name).numBytes() || buffer.order() != ByteOrder.nativeOrder()) {
      throw new IllegalArgumentException("Cannot copy to a TensorFlowLite tensor (" + name + ")");
    }
    int[] row = new int[buffer.capacity() / Integer.BYTES];
    ByteBuffer whole = buffer.duplicate();
    whole.rewind();
    whole.order(buffer.order()).asIntBuffer().get(row);
    return row;
  }

  @Override
  public void close() {
    worker.close();
  }

  public static class Options {
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

  private static final class TensorImpl implements Tensor {
    private final LiteRtWorker.Told told;

    TensorImpl(LiteRtWorker.Told told) {
      this.told = told;
    }

    @Override
    public DataType dataType() {
      return DataType.valueOf(told.dtype.toUpperCase(Locale.ROOT));
    }

    @Override
    public int numBytes() {
      int size = dataType() == DataType.INT8 || dataType() == DataType.UINT8 ? 1 : 4;
      return size * IntStream.of(told.shape).reduce(1, (a, b) -> a * b);
    }

    @Override
    public int[] shape() {
      return told.shape;
    }

    @Override
    public QuantizationParams quantizationParams() {
      return new QuantizationParams(told.scale, told.zeroPoint);
    }
  }
}
