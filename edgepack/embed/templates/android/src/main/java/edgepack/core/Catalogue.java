package edgepack.core;

import java.text.NumberFormat;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Currency;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** What an app shows of the items. */
public final class Catalogue {
  private static final String VOCABULARY = "vocabulary.json";
  private static final String FILE = "catalogue.json";

  /** All items; item i of the model is entry i - 1. */
  public final List<Item> items;
  /** ISO 4217 code of the prices, "" when it is unknown. */
  public final String currency;
  /** Whom the titles are owed to; an app must show it. "" when none is owed. */
  public final String notice;

  private Catalogue(List<Item> items, String currency, String notice) {
    this.items = Collections.unmodifiableList(items);
    this.currency = currency;
    this.notice = notice;
  }

  /** One item. */
  public static final class Item {
    public final String id;
    /** The id, where the shop has no title. */
    public final String title;
    /** In the catalogue's currency; null when the shop tells none. */
    public final Double price;
    /** "" when the shop tells none. */
    public final String category;

    Item(String id, String title, Double price, String category) {
      this.id = id;
      this.title = title;
      this.price = price;
      this.category = category;
    }
  }

  /** Returns the catalogue of a vocabulary [V + 1]; without a file of titles the ids stand for them. */
  static Catalogue read(List<String> vocabulary, byte[] fileOrNull) {
    Object read = fileOrNull == null ? Collections.emptyMap() : Json.read(FILE, fileOrNull);
    Map<?, ?> told = Json.object(FILE, read);
    List<String> titles = column(told.get("titles"), String.class, vocabulary);
    List<Double> prices = column(told.get("prices"), Double.class, vocabulary);
    List<String> categories = column(told.get("categories"), String.class, vocabulary);
    List<Item> items = new ArrayList<>();
    for (int i = 1; i < vocabulary.size(); i++) {
      String id = vocabulary.get(i);
      items.add(new Item(id, text(titles.get(i), id), prices.get(i), text(categories.get(i), "")));
    }
    return new Catalogue(items, word(told.get("currency")), word(told.get("notice")));
  }

  /** Returns the ids, the first of which is padding. */
  static List<String> vocabulary(byte[] file, int itemCount) {
    List<String> ids = Json.list(VOCABULARY, Json.read(VOCABULARY, file), String.class);
    return sized(VOCABULARY, ids, itemCount + 1);
  }

  private static <T> List<T> column(Object value, Class<T> type, List<String> vocabulary) {
    if (value == null) return Collections.nCopies(vocabulary.size(), null);
    return sized(FILE, Json.list(FILE, value, type), vocabulary.size());
  }

  private static <T> List<T> sized(String where, List<T> column, int size) {
    if (column.size() == size) return column;
    String message = where + ": has " + column.size() + " entries in place of " + size + ".";
    throw new EdgepackException(EdgepackException.Code.MALFORMED, message);
  }

  private static String word(Object value) {
    return value == null ? "" : value.toString();
  }

  private static String text(String told, String otherwise) {
    return told == null || told.isEmpty() ? otherwise : told;
  }

  /** Returns an item's price as people of {@code locale} write it, "" when there is none. */
  public String price(Item item, Locale locale) {
    if (item.price == null) return "";
    try {
      NumberFormat format = NumberFormat.getCurrencyInstance(locale);
      format.setCurrency(Currency.getInstance(currency));
      return format.format(item.price);
    } catch (IllegalArgumentException error) { // no currency that this device knows
      NumberFormat format = NumberFormat.getNumberInstance(locale);
      format.setMinimumFractionDigits(2);
      format.setMaximumFractionDigits(2);
      return (format.format(item.price) + ' ' + currency).trim();
    }
  }
}
