package org.tensorflow.lite;

/** What the app uses of https://www.tensorflow.org/lite/api_docs/java/org/tensorflow/lite/DataType. */
public enum DataType {
  FLOAT32,
  INT32,
  UINT8,
  INT64,
  STRING,
  BOOL,
  INT16,
  INT8
}
