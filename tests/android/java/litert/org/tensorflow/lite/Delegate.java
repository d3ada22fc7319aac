package org.tensorflow.lite;

import java.io.Closeable;

/** As LiteRT declares it. */
public interface Delegate extends Closeable {
  long getNativeHandle();

  @Override
  default void close() {}
}
