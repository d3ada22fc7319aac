package edgepack.core;

import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** How to talk to the model, and what its files must be; {@code edgepack.model.Facts} has the bundle's. */
public final class Contract {
  /** L: how many of the newest items the model reads. */
  public final int historyLength;
  /** V: how many items there are, numbered from 1. */
  public final int itemCount;
  /** Whether items of the history are left out of its recommendations. */
  public final boolean filterSeen;
  /** What hashes a search text; null for a model that takes none. */
  public final QueryHasher query;
  /** The model's inputs. */
  public final List<Tensor> inputs;
  /** The model's one output. */
  public final Tensor output;
  /** Every embedded file by its name, the model first. */
  public final Map<String, File> files;

  public Contract(
      int historyLength,
      int itemCount,
      boolean filterSeen,
      QueryHasher query,
      List<Tensor> inputs,
      Tensor output,
      File... files) {
    this.historyLength = historyLength;
    this.itemCount = itemCount;
    this.filterSeen = filterSeen;
    this.query = query;
    this.inputs = Collections.unmodifiableList(inputs);
    this.output = output;
    Map<String, File> byName = new LinkedHashMap<>();
    for (File file : files) byName.put(file.name, file);
    this.files = Collections.unmodifiableMap(byName);
  }

  /** The model's file name. */
  public String model() {
    return files.keySet().iterator().next();
  }

  /** One embedded file. */
  public static final class File {
    public final String name;
    public final String sha256;
    public final long bytes;

    public File(String name, String sha256, long bytes) {
      this.name = name;
      this.sha256 = sha256;
      this.bytes = bytes;
    }
  }

  /** Name, type ("int32", "float32", "int8", "uint8") and static shape of an input or output. */
  public static final class Tensor {
    public final String name;
    public final String dtype;
    private final int[] shape;

    public Tensor(String name, String dtype, int... shape) {
      this.name = name;
      this.dtype = dtype;
      this.shape = shape.clone();
    }

    public int[] shape() {
      return shape.clone();
    }

    @Override
    public String toString() {
      return name + " " + dtype + " " + Arrays.toString(shape);
    }
  }

  /** One limit of the budget that the bundle was judged by. */
  public static final class Limit {
    public final String limit;
    public final double allowed;
    /** What was found; null when it was not measured. */
    public final Double found;
    /** "within", "over", "undecided" or "not measured". */
    public final String status;

    public Limit(String limit, double allowed, Double found, String status) {
      this.limit = limit;
      this.allowed = allowed;
      this.found = found;
      this.status = status;
    }
  }
}
