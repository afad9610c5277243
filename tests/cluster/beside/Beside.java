// What sqlite-jdbc does beside a node: `Beside values|timeout|think FILE [COUNT MS]`.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

public class Beside {
    static void values(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        String seen;
        try (var found = connection.createStatement().executeQuery("SELECT value FROM v WHERE id = 'theirs'")) {
            found.next();
            seen = found.getString(1);
        }
        var values = new Object[][] {{"null", null}, {"integer", Long.MAX_VALUE}, {"real", 0.1}, {"text", "gr\u00fc\u00df'e"},
                                     {"blob", new byte[] {0, (byte) 255, 0}}, {"read", seen}};
        try (var insert = connection.prepareStatement("INSERT INTO v VALUES (?, ?)")) {
            for (var each : values) {
                insert.setObject(1, each[0]);
                insert.setObject(2, each[1]);
                insert.executeUpdate();
            }
        }
        connection.commit();
    }

    static void once(Connection connection, int number, int pause) throws SQLException, InterruptedException {
        connection.setAutoCommit(false);
        try (var found = connection.createStatement().executeQuery("SELECT n FROM t WHERE id = 1")) {
            found.next();
        }
        Thread.sleep(pause);
        try (var update = connection.prepareStatement("UPDATE t SET n = ? WHERE id = 1")) {
            update.setInt(1, number);
            update.executeUpdate();
        }
        connection.commit();
    }

    public static void main(String[] given) throws Exception {
        try (var connection = DriverManager.getConnection("jdbc:sqlite:" + given[1])) {
            if (given[0].equals("timeout")) {
                var found = connection.createStatement().executeQuery("PRAGMA busy_timeout");
                found.next();
                System.out.println(found.getInt(1));
            } else if (given[0].equals("values")) {
                values(connection);
            } else {
                int failed = 0;
                for (int number = 0; number < Integer.parseInt(given[2]); number++) {
                    try {
                        once(connection, number, Integer.parseInt(given[3]));
                    } catch (SQLException error) {
                        System.err.println(error);
                        failed++;
                        connection.rollback();
                    }
                    Thread.sleep(2);
                }
                System.out.println(failed);
            }
        }
    }
}
