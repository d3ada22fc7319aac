package org.tensorflow.lite;

import edgepack.testing.LiteRtWorker;
import java.util.Locale;
import java.util.stream.IntStream;

/** A tensor of the model in the worker. */
public final class Tensor {
  private final LiteRtWorker.Told told;

  Tensor(LiteRtWorker.Told told) {
    this.told = told;
  }

  public DataType dataType() {
    return DataType.valueOf(told.dtype.toUpperCase(Locale.ROOT));
  }

  public int[] shape() {
    return told.shape;
  }

  public int numBytes() {
    int size = dataType() == DataType.INT8 || dataType() == DataType.UINT8 ? 1 : 4;
    return size * IntStream.of(told.shape).reduce(1, (a, b) -> a * b);
  }

  public QuantizationParams quantizationParams() {
    return new QuantizationParams();
  }

  /** One scale and zero point. */
  public final class QuantizationParams {
    public float getScale() {
      return told.scale;
    }

    public int getZeroPoint() {
      return told.zeroPoint;
    }
  }
}
