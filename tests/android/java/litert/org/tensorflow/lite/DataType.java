package org.tensorflow.lite;

/** Those that a recommender has. */
public enum DataType {
  FLOAT32,
  INT32,
  UINT8,
  INT8
}
