package edgepack.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads JSON strictly: whole files of UTF-8, no key twice, nothing after the end. */
final class Json {
  private static final int DEEPEST = 32;

  private final String where;
  private final String text;
  private int at;

  private Json(String where, String text) {
    this.where = where;
    this.text = text;
  }

  /**
   * Returns a Map, List, String, Double, Boolean or null.
   *
   * @param where the file's name, for the message of the EdgepackException that is thrown for anything else
   */
  static Object read(String where, byte[] content) {
    try {
      // A decoder reports what is no UTF-8, where String's constructor replaces it.
      return read(where, StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(content)).toString());
    } catch (CharacterCodingException error) {
      throw new EdgepackException(EdgepackException.Code.MALFORMED, where + ": is no UTF-8.", error);
    }
  }

  static Object read(String where, String text) {
    Json reader = new Json(where, text);
    Object value = reader.value(0);
    reader.space();
    if (reader.at < text.length()) throw reader.refused("more after the end");
    return value;
  }

  /** Returns a value as the list that it should be, of entries that are of {@code type} or null. */
  static <T> List<T> list(String where, Object value, Class<T> type) {
    List<T> found = new ArrayList<>();
    for (Object entry : as(where, value, List.class)) {
      found.add(entry == null ? null : as(where, entry, type));
    }
    return found;
  }

  /** Returns a value as the object that it should be. */
  static Map<?, ?> object(String where, Object value) {
    return as(where, value, Map.class);
  }

  /** Returns a value as the type that it should be. */
  static <T> T as(String where, Object value, Class<T> type) {
    if (type.isInstance(value)) return type.cast(value);
    String found = value == null ? "null" : value.getClass().getSimpleName();
    String message = where + ": has a " + found + " in place of a " + type.getSimpleName() + ".";
    throw new EdgepackException(EdgepackException.Code.MALFORMED, message);
  }

  /** Returns a list of strings as JSON. */
  static String written(List<String> strings) {
    StringBuilder out = new StringBuilder("[");
    for (String one : strings) {
      if (out.length() > 1) out.append(',');
      out.append('"');
      for (char unit : one.toCharArray()) out.append(escaped(unit));
      out.append('"');
    }
    return out.append(']').toString();
  }

  private static String escaped(char unit) {
    // Half of a pair is written out as well, for it has no UTF-8 of its own.
    boolean plain = unit >= ' ' && unit != '"' && unit != '\\' && !Character.isSurrogate(unit);
    return plain ? String.valueOf(unit) : String.format("\\u%04x", (int) unit);
  }

  private Object value(int depth) {
    if (depth > DEEPEST) throw refused("more than " + DEEPEST + " levels");
    space();
    switch (peek()) {
      case '{': return object(depth);
      case '[': return list(depth);
      case '"': return string();
      case 't': return word("true", Boolean.TRUE);
      case 'f': return word("false", Boolean.FALSE);
      case 'n': return word("null", null);
      default: return number();
    }
  }

  private Map<String, Object> object(int depth) {
    Map<String, Object> found = new LinkedHashMap<>();
    at++;
    if (ends('}')) return found;
    do {
      space();
      String key = string();
      space();
      take(':');
      Object value = value(depth + 1);
      if (found.containsKey(key)) throw refused("the key " + key + " twice");
      found.put(key, value);
    } while (goesOn('}'));
    return found;
  }

  private List<Object> list(int depth) {
    List<Object> found = new ArrayList<>();
    at++;
    if (ends(']')) return found;
    do found.add(value(depth + 1));
    while (goesOn(']'));
    return found;
  }

  private boolean ends(char last) {
    space();
    if (peek() != last) return false;
    at++;
    return true;
  }

  private boolean goesOn(char last) {
    if (ends(last)) return false;
    take(',');
    return true;
  }

  private String string() {
    take('"');
    StringBuilder out = new StringBuilder();
    for (; peek() != '"'; at++) {
      char unit = text.charAt(at);
      if (unit < ' ') throw refused("a control character in a string");
      out.append(unit == '\\' ? escape() : unit);
    }
    at++;
    return out.toString();
  }

  private char escape() {
    at++;
    int place = "\"\\/bfnrt".indexOf(peek());
    if (place >= 0) return "\"\\/\b\f\n\r\t".charAt(place);
    if (peek() != 'u' || at + 5 > text.length()) throw refused("an unknown escape");
    String digits = text.substring(at + 1, at + 5);
    if (!digits.matches("[0-9a-fA-F]{4}")) throw refused("an unknown escape");
    at += 4;
    return (char) Integer.parseInt(digits, 16);
  }

  private Object word(String word, Object value) {
    if (!text.startsWith(word, at)) throw refused("no value");
    at += word.length();
    return value;
  }

  private Double number() {
    int start = at;
    while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) at++;
    String digits = text.substring(start, at);
    if (!digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) throw refused("no value");
    return Double.valueOf(digits);
  }

  private void space() {
    while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
  }

  private char peek() {
    if (at >= text.length()) throw refused("the end too early");
    return text.charAt(at);
  }

  private void take(char wanted) {
    if (peek() != wanted) throw refused("no " + wanted);
    at++;
  }

  private EdgepackException refused(String found) {
    String message = where + ": is no JSON, it has " + found + " at character " + at + ".";
    return new EdgepackException(EdgepackException.Code.MALFORMED, message);
  }
}
