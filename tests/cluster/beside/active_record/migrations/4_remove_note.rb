class RemoveNote < ActiveRecord::Migration[6.1]
  def up
    remove_column :books, :note
    change_column_null :books, :author, false, "nobody"
    add_column :books, :pages, :integer, default: 0
    execute "UPDATE books SET pages = 7"
  end
end
