package edgepack.core;

import java.text.Normalizer;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** Search text to the ids of `query`. edgepack/data/query.py is the specification and explains each step. */
public final class QueryHasher {
  /** The specification that this class follows; the manifest names the model's own. */
  public static final String SPEC = "edgepack-ngrams-1";

  private static final int[][] MARKS = {{0x0300, 0x036F}, {0xFE00, 0xFE0F}};
  private static final int[][] DECOMPOSED = {
    {0x00C0, 0x024F}, {0x0370, 0x03F8}, {0x0400, 0x04FF}, {0x1E00, 0x1FFF}, {0xFF01, 0xFF5E}
  };
  private static final int[][] SEPARATORS = {
    {0x0080, 0x00BF}, {0x00D7, 0x00D7}, {0x00F7, 0x00F7}, {0x2000, 0x206F}, {0x3000, 0x303F}
  };
  private static final int[][] LOWER = {
    {0x41, 0x5A, 32}, {0xC0, 0xDE, 32}, {0x391, 0x3A9, 32}, {0x400, 0x40F, 80}, {0x410, 0x42F, 32}
  };
  private static final int BEGIN = 2;
  private static final int END = 3;

  /** Q: how many ids a text becomes. */
  public final int length;

  private final int buckets;
  private final int[] sizes;
  private final int seed;
  private final int textLimit;

  /** Takes the fields of `contract.query` in the manifest; throws when `spec` is another one. */
  public QueryHasher(String spec, int length, int buckets, int[] sizes, int seed, int textLimit) {
    if (!SPEC.equals(spec)) {
      throw new IllegalArgumentException("This app hashes search text by " + SPEC + ", the model by " + spec);
    }
    this.length = length;
    this.buckets = buckets;
    this.sizes = sizes.clone();
    this.seed = seed;
    this.textLimit = textLimit;
  }

  /** Returns the ids of a search text: int32 [length], 0 = padding. */
  public int[] hash(String text) {
    Set<Integer> ids = new LinkedHashSet<>();
    List<int[]> words = markedWords(text);
    for (int[] word : words) ids.add(id(word, 0, word.length));
    for (int size : sizes) {
      for (int[] word : words) {
        for (int start = 0; start + size <= word.length; start++) ids.add(id(word, start, start + size));
      }
    }
    int[] row = new int[length];
    int at = 0;
    for (int id : ids) {
      if (at == length) break;
      row[at++] = id;
    }
    return row;
  }

  private List<int[]> markedWords(String text) {
    List<int[]> words = new ArrayList<>();
    List<Integer> word = new ArrayList<>();
    int[] points = text.codePoints().limit(textLimit).toArray();
    for (int raw : points) {
      for (int point : folded(raw)) {
        if (!separates(point)) {
          word.add(point);
        } else {
          close(word, words);
        }
      }
    }
    close(word, words);
    return words;
  }

  private static void close(List<Integer> word, List<int[]> words) {
    if (word.isEmpty()) return;
    int[] marked = new int[word.size() + 2];
    marked[0] = BEGIN;
    for (int i = 0; i < word.size(); i++) marked[i + 1] = word.get(i);
    marked[marked.length - 1] = END;
    words.add(marked);
    word.clear();
  }

  private static int[] folded(int point) {
    if (within(point, MARKS)) return new int[0];
    String character = new String(Character.toChars(point));
    if (within(point, DECOMPOSED)) character = Normalizer.normalize(character, Normalizer.Form.NFKD);
    StringBuilder out = new StringBuilder();
    character.codePoints().filter(part -> !within(part, MARKS)).map(QueryHasher::lower).forEach(part -> {
      String spelled = spelled(part);
      if (spelled == null) out.appendCodePoint(part);
      else out.append(spelled);
    });
    return out.codePoints().toArray();
  }

  private static int lower(int point) {
    for (int[] block : LOWER) {
      if (block[0] <= point && point <= block[1] && point != 0xD7) return point + block[2];
    }
    return point;
  }

  private static String spelled(int point) {
    switch (point) {
      case 0x00DF: case 0x1E9E: return "ss";
      case 0x00E6: return "ae";
      case 0x00F0: case 0x0110: case 0x0111: return "d";
      case 0x00F8: return "o";
      case 0x00FE: return "th";
      case 0x0126: case 0x0127: return "h";
      case 0x0131: return "i";
      case 0x0141: case 0x0142: return "l";
      case 0x014A: case 0x014B: return "n";
      case 0x0152: case 0x0153: return "oe";
      case 0x0166: case 0x0167: return "t";
      case 0x03C2: return "\u03C3";
      default: return null;
    }
  }

  private static boolean separates(int point) {
    if (point < 0x80) return !(point >= 0x30 && point <= 0x39 || point >= 0x61 && point <= 0x7A);
    return within(point, SEPARATORS);
  }

  private static boolean within(int point, int[][] blocks) {
    for (int[] block : blocks) if (block[0] <= point && point <= block[1]) return true;
    return false;
  }

  private int id(int[] word, int start, int stop) {
    int value = 0x811C9DC5 ^ seed;
    for (int i = start; i < stop; i++) {
      for (int shift = 0; shift < 24; shift += 8) value = (value ^ (word[i] >> shift & 255)) * 16777619;
    }
    return 1 + (int) ((value & 0xFFFFFFFFL) % buckets);
  }
}
