package org.tensorflow.lite;

/** What the app uses of https://www.tensorflow.org/lite/api_docs/java/org/tensorflow/lite/Tensor. */
public interface Tensor {
  DataType dataType();

  int numBytes();

  int[] shape();

  QuantizationParams quantizationParams();

  class QuantizationParams {
    public QuantizationParams(float scale, int zeroPoint) {}

    public native float getScale();

    public native int getZeroPoint();
  }
}
