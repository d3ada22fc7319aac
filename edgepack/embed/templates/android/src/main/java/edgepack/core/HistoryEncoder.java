package edgepack.core;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Item ids to the model's input. */
final class HistoryEncoder {
  private final int length;
  private final Map<String, Integer> indexOf = new HashMap<>();

  /** Takes the vocabulary, whose first entry is padding and no item, and L. */
  HistoryEncoder(List<String> vocabulary, int length) {
    this.length = length;
    for (int index = 1; index < vocabulary.size(); index++) indexOf.put(vocabulary.get(index), index);
  }

  /** Returns the item's index, 0 for an id that the model does not know. */
  int index(String id) {
    Integer index = indexOf.get(id);
    return index == null ? 0 : index;
  }

  /** Returns the indices of the ids that the model knows, in their order. */
  int[] known(Collection<String> ids) {
    return ids.stream().mapToInt(this::index).filter(index -> index != 0).toArray();
  }

  /** Returns the ids that the model does not know, in their order. */
  List<String> unknown(Collection<String> ids) {
    List<String> unknown = new ArrayList<>(ids);
    unknown.removeIf(indexOf::containsKey);
    return unknown;
  }

  /** Returns the row [L]: the newest indices, oldest first, right-aligned, 0 = padding. */
  int[] row(int[] history) {
    int[] row = new int[length];
    int kept = Math.min(length, history.length);
    System.arraycopy(history, history.length - kept, row, length - kept, kept);
    return row;
  }
}
