package edgepack.android;

import edgepack.core.Contract;
import edgepack.core.EdgepackException;
import edgepack.core.Engine;
import java.io.Closeable;
import java.io.IOException;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Collections;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.Tensor;

/** LiteRT's interpreter on the model in its mapped memory; tensors go by their names in its signature. */
public final class LiteRtEngine implements Engine {
  private final Interpreter interpreter;
  private final Closeable delegate;
  private final Contract.Tensor output;
  private final float scale;
  private final int zeroPoint;
  private final Map<String, Object> inputs = new HashMap<>();
  private final ByteBuffer scores;

  private LiteRtEngine(Interpreter interpreter, Closeable delegate, Contract contract) {
    this.interpreter = interpreter;
    this.delegate = delegate;
    for (Contract.Tensor input : contract.inputs) {
      inputs.put(input.name, buffer(interpreter.getInputTensorFromSignature(input.name, null), input));
    }
    Tensor given = interpreter.getOutputTensorFromSignature(contract.output.name, null);
    output = contract.output;
    scores = buffer(given, output);
    scale = given.quantizationParams().getScale();
    zeroPoint = given.quantizationParams().getZeroPoint();
  }

  private static ByteBuffer buffer(Tensor tensor, Contract.Tensor wanted) {
    String dtype = tensor.dataType().name().toLowerCase(Locale.ROOT);
    Contract.Tensor found = new Contract.Tensor(wanted.name, dtype, tensor.shape());
    if (!found.toString().equals(wanted.toString())) {
      throw refused("the model has " + found + " in place of " + wanted, null);
    }
    return ByteBuffer.allocateDirect(tensor.numBytes()).order(ByteOrder.nativeOrder());
  }

  /** On one thread of the processor: what the bundle was measured with. */
  public static Factory cpu() {
    return cpu(1);
  }

  /** On more threads of the processor. Small models get slower by it. */
  public static Factory cpu(int threads) {
    String name = "LiteRT, CPU, " + threads + (threads == 1 ? " thread" : " threads");
    return new Opener(name, threads, () -> null);
  }

  /**
   * With a delegate, a GPU's say, which is closed with the engine. It answers otherwise than the processor
   * does, so the self-test decides whether it is used.
   */
  public static Factory with(String name, Supplier<? extends Delegate> delegate) {
    return new Opener("LiteRT, " + name, 1, delegate);
  }

  private static final class Opener implements Factory {
    private final String name;
    private final int threads;
    private final Supplier<? extends Delegate> delegate;

    Opener(String name, int threads, Supplier<? extends Delegate> delegate) {
      this.name = name;
      this.threads = threads;
      this.delegate = delegate;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public Engine open(ByteBuffer model, Contract contract) {
      Delegate opened = null;
      Interpreter interpreter = null;
      try {
        opened = delegate.get();
        Interpreter.Options options = new Interpreter.Options().setNumThreads(threads);
        if (opened != null) options.addDelegate(opened);
        interpreter = new Interpreter(model, options);
        return new LiteRtEngine(interpreter, opened, contract);
      } catch (RuntimeException | LinkageError error) { // no library for this processor is a LinkageError
        close(interpreter, opened);
        throw error instanceof EdgepackException
            ? (EdgepackException) error
            : refused("it could not be opened (" + error.getMessage() + ")", error);
      }
    }
  }

  @Override
  public float[] scores(int[] history, int[] queryOrNull) {
    fill("history", history);
    if (queryOrNull != null) fill("query", queryOrNull);
    rewound(scores);
    try {
      interpreter.runSignature(inputs, Collections.<String, Object>singletonMap(output.name, scores));
    } catch (RuntimeException error) {
      throw refused("it failed (" + error.getMessage() + ")", error);
    }
    rewound(scores);
    return dequantized();
  }

  private void fill(String name, int[] row) {
    ByteBuffer input = (ByteBuffer) inputs.get(name);
    rewound(input);
    input.asIntBuffer().put(row);
  }

  /** As a Buffer: Android 7 and 8 lack the method of ByteBuffer itself, which javac would choose. */
  private static void rewound(Buffer buffer) {
    buffer.rewind();
  }

  private float[] dequantized() {
    float[] row = new float[output.shape()[1]];
    if (output.dtype.equals("float32")) {
      scores.asFloatBuffer().get(row);
      return row;
    }
    int mask = output.dtype.equals("uint8") ? 255 : -1;
    for (int i = 0; i < row.length; i++) row[i] = ((scores.get(i) & mask) - zeroPoint) * scale;
    return row;
  }

  @Override
  public void close() {
    close(interpreter, delegate);
  }

  private static void close(Interpreter interpreter, Closeable delegate) {
    if (interpreter != null) interpreter.close();
    try {
      if (delegate != null) delegate.close(); // the interpreter uses it until it is closed
    } catch (IOException error) {
      throw refused("its delegate could not be closed", error);
    }
  }

  private static EdgepackException refused(String found, Throwable cause) {
    return new EdgepackException(EdgepackException.Code.ENGINE, "LiteRT: " + found + ".", cause);
  }
}
