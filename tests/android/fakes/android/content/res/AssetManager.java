package android.content.res;

import java.io.ByteArrayInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import phone.Phone;

/** Reads the APK itself. */
public final class AssetManager {
  private static final String FOLDER = "assets/";
  private static final int LOCAL_HEADER_BYTES = 30;

  public InputStream open(String fileName) throws IOException {
    try (ZipFile apk = new ZipFile(Phone.apk())) {
      InputStream member = apk.getInputStream(entry(apk, fileName));
      return new ByteArrayInputStream(member.readAllBytes());
    }
  }

  public AssetFileDescriptor openFd(String fileName) throws IOException {
    try (ZipFile apk = new ZipFile(Phone.apk())) {
      ZipEntry entry = entry(apk, fileName);
      if (entry.getMethod() != ZipEntry.STORED) {
        throw new FileNotFoundException(
            "This file can not be opened as a file descriptor; it is probably compressed");
      }
      return new AssetFileDescriptor(Phone.apk(), offset(entry.getName()), entry.getSize());
    }
  }

  private static ZipEntry entry(ZipFile apk, String fileName) throws FileNotFoundException {
    ZipEntry entry = apk.getEntry(FOLDER + fileName);
    if (entry == null) throw new FileNotFoundException(fileName);
    return entry;
  }

  /** Finds a member's data by going through the file from its beginning: Java does not tell the place. */
  private static long offset(String name) throws IOException {
    try (RandomAccessFile file = new RandomAccessFile(Phone.apk(), "r")) {
      for (long at = 0; ; ) {
        file.seek(at);
        byte[] header = new byte[LOCAL_HEADER_BYTES];
        file.readFully(header);
        byte[] found = new byte[number(header, 26, 2)];
        file.readFully(found);
        long data = at + LOCAL_HEADER_BYTES + found.length + number(header, 28, 2);
        if (new String(found, "UTF-8").equals(name)) return data;
        at = data + number(header, 18, 4);
      }
    }
  }

  private static int number(byte[] header, int at, int bytes) {
    int value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | header[at + i] & 255;
    return value;
  }
}
