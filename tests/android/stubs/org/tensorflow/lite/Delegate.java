package org.tensorflow.lite;

import java.io.Closeable;

/** What the app uses of https://www.tensorflow.org/lite/api_docs/java/org/tensorflow/lite/Delegate. */
public interface Delegate extends Closeable {
  long getNativeHandle();

  @Override
  default void close() {}
}
