# Rails' migrations without the rest of Rails: `migrate.rb FILE VERSION`.
require "active_record"

file, version = ARGV
ActiveRecord::Migration.verbose = false
ActiveRecord::Base.establish_connection(adapter: "sqlite3", database: file, timeout: 20_000)
ActiveRecord::Migrator.migrations_paths = [File.join(__dir__, "migrations")]
from = ActiveRecord::Base.connection
from = ActiveRecord::Base.connection_pool unless from.respond_to?(:migration_context)
from.migration_context.migrate(version.to_i)
