#!/usr/bin/env bash
# Liquibase: addColumn on SQLite makes the table again from what JDBC says of it, deletes the children, and drops the new
# column's own default and NOT NULL.
#
# Versions:  liquibase-core 5.0.4 (liquibase/liquibase issue 7197 has the foreign key), sqlite-jdbc 3.54.1.0, Java 17 or later;
#            needs java and mvn
# Guess:     addColumn is ALTER TABLE ADD COLUMN, with the default and the constraint that the change names.
# Behaviour: The table is renamed, created again, copied, and dropped; dropColumn and addDefaultValue do the same. Without a word
#            go: COLLATE, CHECK, triggers, an index's WHERE, ON DELETE CASCADE's children (where foreign keys are on) and the
#            counter of AUTOINCREMENT. DEFAULT (lower('X')) becomes the text 'lower(''X'')', DECIMAL(10,2) becomes
#            DECIMAL(12, 2). The new column has no default and takes NULL, so old rows have NULL where 3 was asked for. The
#            rename carried the children's foreign keys along, to a table that is gone: the next insert fails.
# For users: It runs once, and its result and its deletions travel to every node. Write <sql> with ALTER TABLE ADD COLUMN in the
#            place of addColumn. renameColumn is an ALTER TABLE.
#
# Output:
#   children left of 1: 0
#   next id, after 9 was deleted: 2
#   triggers left of 1: 0
#   kept: WHERE of an index: false
#   kept: COLLATE NOCASE: false
#   kept: CHECK: false
#   kept: DECIMAL(10,2): false
#   default of a column that was lower('X'): 'lower(''X'')'
#   the new column, int, default 3, not null: z INTEGER
#   its value in the old row: null
#   what the child refers to: p_temporary
#   an insert into the child: no such table: main.p_temporary
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages
cat > "$work/pom.xml" <<'XML'
<project><modelVersion>4.0.0</modelVersion><groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.liquibase</groupId><artifactId>liquibase-core</artifactId><version>5.0.4</version></dependency>
<dependency><groupId>org.xerial</groupId><artifactId>sqlite-jdbc</artifactId><version>3.54.1.0</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
XML
mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/jars" >/dev/null
cat > "$work/log.sql" <<'SQL'
CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE, price DECIMAL(10,2), q INTEGER CHECK (q < 9), low TEXT DEFAULT (lower('X')));
CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE);
CREATE TABLE log(x);
CREATE TRIGGER mine AFTER UPDATE ON p BEGIN INSERT INTO log VALUES (new.id); END;
CREATE INDEX part ON p(name) WHERE q = 1;
INSERT INTO p(id, name, price, q) VALUES (1, 'a', 1.5, 1), (9, 'b', 2.5, 2);
DELETE FROM p WHERE id = 9;
INSERT INTO child VALUES (1, 1);
SQL
cat > "$work/log.xml" <<'XML'
<databaseChangeLog xmlns="http://www.liquibase.org/xml/ns/dbchangelog" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.liquibase.org/xml/ns/dbchangelog http://www.liquibase.org/xml/ns/dbchangelog/dbchangelog-latest.xsd">
<changeSet id="1" author="finding"><addColumn tableName="p"><column name="z" type="int" defaultValueNumeric="3">
<constraints nullable="false"/></column></addColumn></changeSet>
</databaseChangeLog>
XML
cat > "$work/Look.java" <<'JAVA'
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Objects;
import liquibase.Liquibase;
import liquibase.database.DatabaseFactory;
import liquibase.database.jvm.JdbcConnection;
import liquibase.resource.DirectoryResourceAccessor;

public class Look {
    static boolean changed = false;
    static Statement db;

    static void expect(String what, String seen, String stated) {
        boolean same = Objects.equals(seen, stated);
        System.out.println(what + ": " + seen + (same ? "" : "   <- CHANGED, stated is " + stated));
        changed |= !same;
    }

    static String of(String sql) throws Exception {
        try (ResultSet rows = db.executeQuery(sql)) {
            return rows.next() ? rows.getString(1) : "no row";
        }
    }

    static String errorOf(String sql) {
        try {
            db.execute(sql);
            return "none";
        } catch (SQLException error) {
            return error.getMessage().replaceAll(".*\\((.*)\\)$", "$1");
        }
    }

    public static void main(String[] args) throws Exception {
        Path folder = Path.of(args[0]);
        try (Connection connection = DriverManager.getConnection("jdbc:sqlite:" + folder.resolve("a.db") + "?foreign_keys=true")) {
            db = connection.createStatement();
            for (String line : Files.readAllLines(folder.resolve("log.sql"))) {
                db.execute(line);
            }
            PrintStream out = System.out;
            System.setOut(new PrintStream(OutputStream.nullOutputStream()));
            var database = DatabaseFactory.getInstance().findCorrectDatabaseImplementation(new JdbcConnection(connection));
            new Liquibase("log.xml", new DirectoryResourceAccessor(folder), database).update("");
            System.setOut(out);
            String table = of("SELECT sql FROM sqlite_master WHERE name = 'p'");
            expect("children left of 1", of("SELECT count(*) FROM child"), "0");
            expect("next id, after 9 was deleted", of("SELECT seq + 1 FROM sqlite_sequence WHERE name = 'p'"), "2");
            expect("triggers left of 1", of("SELECT count(*) FROM sqlite_master WHERE name = 'mine'"), "0");
            String index = of("SELECT sql FROM sqlite_master WHERE name = 'part'");
            expect("kept: WHERE of an index", "" + index.contains("WHERE"), "false");
            expect("kept: COLLATE NOCASE", "" + table.contains("NOCASE"), "false");
            expect("kept: CHECK", "" + table.contains("CHECK"), "false");
            expect("kept: DECIMAL(10,2)", "" + table.replace(" ", "").contains("DECIMAL(10,2)"), "false");
            expect("default of a column that was lower('X')",
                of("SELECT dflt_value FROM pragma_table_info('p') WHERE name = 'low'"), "'lower(''X'')'");
            expect("the new column, int, default 3, not null", table.substring(table.indexOf("z INTEGER"), table.length() - 1), "z INTEGER");
            expect("its value in the old row", of("SELECT z FROM p"), null);
            expect("what the child refers to", of("SELECT \"table\" FROM pragma_foreign_key_list('child')"), "p_temporary");
            expect("an insert into the child", errorOf("INSERT INTO child VALUES (2, 1)"), "no such table: main.p_temporary");
        }
        System.out.println(changed ? "changed" : "as stated");
        System.exit(changed ? 1 : 0);
    }
}
JAVA
java -cp "$work/jars/*" "$work/Look.java" "$work" 2>/dev/null
