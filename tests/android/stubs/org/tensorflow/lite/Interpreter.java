package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.util.Map;

/** What the app uses of https://www.tensorflow.org/lite/api_docs/java/org/tensorflow/lite/Interpreter. */
public final class Interpreter implements AutoCloseable {
  public Interpreter(ByteBuffer byteBuffer, Options options) {}

  public native Tensor getInputTensorFromSignature(String inputName, String signatureKey);

  public native Tensor getOutputTensorFromSignature(String outputName, String signatureKey);

  public native void runSignature(Map<String, Object> inputs, Map<String, Object> outputs);

  @Override
  public native void close();

  public static class Options {
    public native Options setNumThreads(int numThreads);

    public native Options addDelegate(Delegate delegate);
  }
}
